"""A file system of a few MiB that a test can fill, and free again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.environment import lacks


@dataclass(frozen=True)
class SmallDisk:
    folder: Path

    def fill(self) -> None:
        """Take all of it, to the last byte."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[SmallDisk]:
    """A tmpfs of 24 MiB, mounted for the length of the `with`; skips where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = ",".join(("size=24m", *options))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", chosen, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        lacks("mount", mounted.stderr.strip())
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
