"""Acknowledgements of stored messages, sent until the broker confirms them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.bus import BusError, LaneReader
from headrace.bus.outbox import Outbox
from headrace_scheduler.base import metrics

MAX_AT_ONCE = 64
MAX_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class _Acknowledgement:
    request_id: str
    lane: LaneReader
    token: str


class Acknowledgements:
    """Bounded by the lanes' bounds: one for each message that was read and has ended."""

    def __init__(self) -> None:
        # Why not keyed by request: two messages may have the same id, and both must go.
        self._outbox = Outbox[_Acknowledgement](
            "acknowledgements",
            self._send,
            key=lambda each: each,
            max_items=MAX_AT_ONCE,
            max_retry_s=MAX_RETRY_S,
            on_retry=metrics.retried.labels("acknowledge").inc,
        )
        self._newest: dict[str, _Acknowledgement] = {}
        self.run = self._outbox.run

    def add(self, request_id: str, lane: LaneReader, token: str) -> None:
        self._newest[request_id] = _Acknowledgement(request_id, lane, token)
        self._outbox.add(self._newest[request_id])

    async def confirmed(self, request_ids: Iterable[str]) -> None:
        """Wait until those of these requests are confirmed. Give it a deadline."""
        await self._outbox.confirmed(self._newest[i] for i in request_ids if i in self._newest)

    async def all_confirmed(self) -> None:
        await self._outbox.confirmed()

    def __len__(self) -> int:
        """Return how many are not confirmed."""
        return len(self._outbox)

    async def _send(self, batch: list[_Acknowledgement]) -> list[_Acknowledgement]:
        """Return those that were not confirmed."""
        confirmed = await asyncio.gather(*map(_try_acknowledge, batch))
        for each, is_confirmed in zip(batch, confirmed, strict=True):
            if is_confirmed and self._newest.get(each.request_id) is each:
                del self._newest[each.request_id]
        return [
            each for each, is_confirmed in zip(batch, confirmed, strict=True) if not is_confirmed
        ]


async def _try_acknowledge(each: _Acknowledgement) -> bool:
    try:
        await each.lane.acknowledge(each.token)
    except BusError:
        return False
    return True
