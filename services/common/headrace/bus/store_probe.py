"""Whether the broker can store, as the services try it."""

from __future__ import annotations

from typing import Protocol


class StoreProbe(Protocol):
    async def probe_store(self, *, timeout_s: float) -> None:
        """Store a message in place of the last one.

        Raises:
            StoreRefused: the broker answers that it cannot.
            BusUnavailable: it did not answer in time, or is away.
        """
        ...
