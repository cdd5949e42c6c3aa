"""What this process may use of its machine: cores and memory, within the limits of containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_V2 = "0"
"""The number of the one hierarchy of version 2; version 1 has one for each controller."""


@dataclass(frozen=True, slots=True)
class Machine:
    cores: float
    """Physical cores that affinity and quota leave; hyperthreads do not count."""
    memory_bytes: int
    """That this process may use at most, however much of it is used."""
    free_bytes: int
    """Of these, now."""


def this_machine(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> Machine:
    """Return the present limits; memory changes."""
    limits = Limits(cgroups, own_cgroups)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False)
    cores = (allowed or 1) * min(1.0, (physical or logical) / logical)
    memory = psutil.virtual_memory()
    return Machine(
        cores=min(cores, limits.cpu_quota),
        memory_bytes=int(min(memory.total, limits.memory_bytes)),
        free_bytes=int(min(memory.available, limits.memory_left_bytes)),
    )


class Limits:
    """Limits of the control groups that a process is in, of either version; infinite where unset.

    Groups lie within each other and the narrowest binds. Within a container the path that
    the kernel names may be the host's: then the folders above it are those of the container.
    """

    def __init__(self, cgroups: Path, own_cgroups: Path) -> None:
        text = own_cgroups.read_text("utf-8") if own_cgroups.is_file() else ""
        self._root = cgroups
        self._paths = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]

    @property
    def cpu_quota(self) -> float:
        """Cores' worth of time."""
        quotas = [float("inf")]
        for folder in self._folders("cpu"):
            quota, period = _numbers(folder / "cpu.max", 2)
            if quota < 0:
                (quota,), (period,) = (_numbers(folder / name, 1) for name in _V1_CPU)
            if quota > 0 and period > 0:
                quotas.append(quota / period)
        return min(quotas)

    @property
    def memory_bytes(self) -> float:
        return min((allowed for allowed, _ in self._memory()), default=float("inf"))

    @property
    def memory_left_bytes(self) -> float:
        """What is allowed less what is used; files that lie in memory, unused, do not count."""
        left = (max(0.0, allowed - taken) for allowed, taken in self._memory())
        return min(left, default=float("inf"))

    def _memory(self) -> Iterator[tuple[float, float]]:
        """Yield what is allowed and used, of every group that has a limit."""
        for folder in self._folders("memory"):
            for limit, used in (_V2_MEMORY, _V1_MEMORY):
                (allowed,), (taken,) = (_numbers(folder / name, 1) for name in (limit, used))
                if allowed > 0:
                    yield allowed, max(0.0, taken - _idle_file_bytes(folder / "memory.stat"))

    def _folders(self, controller: str) -> Iterator[Path]:
        """Yield the folders from this process's own group outwards."""
        for number, controllers, path in self._paths:
            if number == _V2:
                root = self._root
            elif controller in controllers.split(","):
                root = self._root / controller
            else:
                continue
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


_V1_CPU = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_V2_MEMORY = ("memory.max", "memory.current")


def _numbers(file: Path, count: int) -> list[float]:
    """Return the numbers of a line; -1 for each that is not there, "max" among them."""
    words = file.read_text("utf-8").split()[:count] if file.is_file() else []
    numbers = [float(word) if word.lstrip("-").isdigit() else -1.0 for word in words]
    return numbers + [-1.0] * (count - len(numbers))


def _idle_file_bytes(file: Path) -> int:
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    found = dict(line.split() for line in lines)
    # Version 1 has its own and that of the groups within; version 2 has them in one.
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))
