"""Whether a folder's file system takes what a mesh writes, tried by writing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED_BYTES = 8 << 20
"""Free space that a mesh must find, to start or to have its broker started again."""
NEEDED_BY_PROCESS_BYTES = 1 << 20
"""Free space that one process must find to be started: for its ports, and what it logs."""
_TRIAL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class DiskProblem:
    """Why nothing can be written to a folder."""

    reason: str
    """As the operating system says it: "no space left on device"."""
    where: str
    """The folder, its file system, what is free and what is needed."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.where}"


def disk_problem(folder: Path, *, needed_bytes: int = NEEDED_BYTES) -> DiskProblem | None:
    """None if files can be written to `folder`, which need not be there yet. May block."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        free = os.statvfs(there)
        free_bytes, inodes = free.f_bavail * free.f_frsize, (free.f_files, free.f_favail)
        size_bytes = free.f_blocks * free.f_frsize
        where = (
            f"{folder} is on the file system mounted at {_mount_point(there)}, which has "
            f"{_amount(free_bytes)} of {_amount(size_bytes)} free; "
            f"{_amount(needed_bytes)} are needed"
        )
        if free.f_flag & os.ST_RDONLY:
            return DiskProblem(_said(errno.EROFS), where)
        if inodes[0] and not inodes[1]:
            return DiskProblem(_said(errno.ENOSPC), f"{where}; it has no inodes left for files")
        if free_bytes < needed_bytes:
            return DiskProblem(_said(errno.ENOSPC), where)
        _try_to_write(there)
    except OSError as error:
        return DiskProblem(_said(error.errno or errno.EIO), f"{folder} cannot be written")
    return None


def _try_to_write(folder: Path) -> None:
    # Why beside the numbers: quotas and broken disks do not show there.
    trial = folder / f".headrace-trial.{os.getpid()}"
    try:
        with trial.open("wb") as file:
            file.write(bytes(_TRIAL_BYTES))
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


def _mount_point(path: Path) -> Path:
    return next(above for above in _upwards(path.resolve()) if os.path.ismount(above))


def _upwards(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents


def _said(number: int) -> str:
    said = os.strerror(number)
    return said[:1].lower() + said[1:]


def _amount(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"
