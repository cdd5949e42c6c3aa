"""Backups of what the broker stores, as the services use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Snapshots(Protocol):
    """Whole streams of `stores.BACKED_UP`, for backups of the broker."""

    async def stored(self) -> dict[str, int]:
        """Return how many messages each stream holds; those that there are not are left out.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    async def save_stream(self, stream: str, write: Callable[[bytes], object]) -> bytes:
        """Write a stream as it is at one moment, part by part; return its description.

        Raises:
            BusError: the broker cannot; what was written is incomplete.
        """
        ...

    async def load_stream(self, stream: str, description: bytes, chunks: Iterable[bytes]) -> None:
        """Make a stream anew from what `save_stream` wrote and returned; a present one is deleted.

        Raises:
            BusError: the broker cannot, and the stream is not there.
        """
        ...
