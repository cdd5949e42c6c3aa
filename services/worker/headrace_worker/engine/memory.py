"""How much memory the keys and values may take."""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path

import psutil
import torch
from torch import Tensor

_UTILIZATION = {"cpu": 0.5, "cuda": 0.9}
"""Of a machine half, for others live there too; of a GPU what passes and drivers leave."""
_GROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Where a control group tells its limit and its use, of version 2 and of version 1."""


def cache_budget(device: torch.device, *, utilization: float | None, weights: int) -> int:
    """Bytes for keys and values on a device that holds `weights` bytes of their model already."""
    if utilization is None:
        utilization = _UTILIZATION[device.type]
    if device.type == "cpu":
        total, free = machine_memory()
        return share(total, free, taken=weights, utilization=utilization)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    # Whoever took what is taken: there is no other room on this device.
    return share(total, free, taken=total - free, utilization=utilization)


def share(total: int, free: int, *, taken: int, utilization: float) -> int:
    """What is left of a share of `total` bytes of which `taken` are taken, and is free; from 0."""
    return max(0, min(int(total * utilization) - taken, free))


def machine_memory(groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """What this process may use of the machine at most, and what is free of it: bytes.

    A container's limit counts where it is lower than the machine.
    """
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit_file, use_file in _GROUPS:
        limit, use = _number(groups / limit_file), _number(groups / use_file)
        if limit is not None and use is not None and limit < total:
            total, free = limit, min(free, limit - use)
    return total, free


def _number(path: Path) -> int | None:
    """None where there is no such file, or no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def untouched(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros from the system that take memory page by page, as they are written.

    Raises:
        MemoryError: the address space does not take them.
    """
    # Why not torch.zeros: it writes the zeros, so memory is committed at once.
    size = prod(shape) * dtype.itemsize
    try:
        octets = mmap.mmap(-1, size)
    except OSError as error:
        raise MemoryError(f"{size} bytes of address space: {error}") from error
    # Why not numpy's: it asks for huge pages, each of which commits room for many tokens of
    # other heads and slots; short contexts then take sixteen times their memory.
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux alone has them
        octets.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(octets, dtype=dtype).view(shape)
