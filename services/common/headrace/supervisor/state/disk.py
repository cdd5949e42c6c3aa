"""Whether a folder can be written to, and has the space that a mesh needs."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

NEEDED_BYTES = 8 << 20
"""Free space that a mesh needs to start, or to restart its broker."""
NEEDED_BY_PROCESS_BYTES = 1 << 20
"""Free space that one process needs to start, for its ports and its log."""
_WRITTEN_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class DiskProblem:
    """Why nothing can be written to a folder."""

    reason: str
    """In the operating system's words: "no space left on device"."""
    where: str
    """The folder, its file system, what is free and what is needed."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.where}"


def disk_problem(folder: Path, *, needed_bytes: int = NEEDED_BYTES) -> DiskProblem | None:
    """Return why no files can be written to `folder`, which need not exist; None if they can.

    May block.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        free = os.statvfs(existing)
        free_bytes, size_bytes = free.f_bavail * free.f_frsize, free.f_blocks * free.f_frsize
        needs_inodes = free.f_files > 0 and free.f_favail == 0
        where = (
            f"{folder} is on the file system mounted at {_mount_point(existing)}, which has "
            f"{_mebibytes(free_bytes)} of {_mebibytes(size_bytes)} free; "
            f"{_mebibytes(needed_bytes)} are needed"
        )
        if free.f_flag & os.ST_RDONLY:
            return DiskProblem(_error_text(errno.EROFS), where)
        if needs_inodes:
            where += "; it has no inodes left for files"
        if needs_inodes or free_bytes < needed_bytes:
            return DiskProblem(_error_text(errno.ENOSPC), where)
        _try_to_write(existing)
    except OSError as error:
        return DiskProblem(_error_text(error.errno or errno.EIO), f"{folder} cannot be written")
    return None


def _try_to_write(folder: Path) -> None:
    # Why: the numbers show neither quotas nor broken disks.
    file = folder / f".headrace-trial.{os.getpid()}"
    try:
        with file.open("wb") as opened:
            opened.write(bytes(_WRITTEN_BYTES))
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def _mount_point(path: Path) -> Path:
    resolved = path.resolve()
    return next(each for each in (resolved, *resolved.parents) if os.path.ismount(each))


def _error_text(number: int) -> str:
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"
