"""A connection to the broker that records in which order some of its calls complete."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.bus import Bus
from headrace.bus.subjects import settle

TURNS = 50
"""Of the event loop, which a result takes before it is stored: time for what must not overtake."""


class RecordedBus:
    """All calls go to the broker; `calls` has the names of those about results and their ends."""

    def __init__(self, bus: Bus, model: str) -> None:
        self._bus, self._settle = bus, settle(model)
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def put_result(self, *args: Any, **kwargs: Any) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await self._bus.put_result(*args, **kwargs)
        self.calls.append("stored")

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if subject == self._settle:
            self.calls.append("settle")
        return await self._bus.request(subject, payload, timeout_s=timeout_s)
