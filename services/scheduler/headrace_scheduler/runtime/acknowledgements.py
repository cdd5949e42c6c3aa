"""Acknowledgements of stored messages, sent until the broker confirms them; what their requests
have used is published before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from headrace.bus import BusError, LaneReader
from headrace.bus.outbox import Outbox
from headrace_scheduler.base import metrics
from headrace_scheduler.runtime.usage_publisher import UsagePublisher
from headrace_scheduler.state.events import Acknowledge

MAX_AT_ONCE = 64
WAIT_S = 0.005
"""How long ends wait for others: their usage is published together. No reader of output waits for
it, but a request counts as under way for that much longer."""
MAX_RETRY_S = 0.2


class Acknowledgements:
    """Bounded by the lanes' bounds: one for each message that was read and has ended."""

    def __init__(self, lanes: Mapping[str, LaneReader], publisher: UsagePublisher) -> None:
        self._lanes, self._publisher = lanes, publisher
        self._published: set[Acknowledge] = set()
        """Those that are not confirmed, and whose usage record is stored."""
        # Why not keyed by request: two messages may have the same id, and both must go.
        self._outbox = Outbox[Acknowledge](
            "acknowledgements",
            self._send,
            key=lambda each: each,
            max_items=MAX_AT_ONCE,
            wait_s=WAIT_S,
            max_retry_s=MAX_RETRY_S,
            on_retry=metrics.retried.labels("acknowledge").inc,
        )
        self._newest: dict[str, Acknowledge] = {}
        self.run = self._outbox.run

    def add(self, command: Acknowledge) -> None:
        if command.usage is not None:
            self._publisher.complete(command.usage)
        self._newest[command.request_id] = command
        self._outbox.add(command)

    async def confirmed(self, request_ids: Iterable[str]) -> None:
        """Wait until those of these requests are confirmed. Give it a deadline."""
        await self._outbox.confirmed(self._newest[i] for i in request_ids if i in self._newest)

    async def all_confirmed(self) -> None:
        await self._outbox.confirmed()

    def __len__(self) -> int:
        """Return how many are not confirmed."""
        return len(self._outbox)

    async def _send(self, batch: list[Acknowledge]) -> list[Acknowledge]:
        """Return those that were not confirmed.

        Why none is acknowledged before the records of all are stored: one may be the message of
        another, come again.
        """
        await self._publish(batch)
        confirmed = await asyncio.gather(*map(self._try_acknowledge, batch))
        for each, is_confirmed in zip(batch, confirmed, strict=True):
            if is_confirmed:
                self._published.discard(each)
                if self._newest.get(each.request_id) is each:
                    del self._newest[each.request_id]
        return [
            each for each, is_confirmed in zip(batch, confirmed, strict=True) if not is_confirmed
        ]

    async def _publish(self, batch: list[Acknowledge]) -> None:
        """Publish the records that are not stored yet.

        Raises:
            BusError: none is known to be stored.
        """
        records = {
            each: each.usage
            for each in batch
            if each.usage is not None and each not in self._published
        }
        if records:
            await self._publisher.publish(list(records.values()))
            self._published.update(records)

    async def _try_acknowledge(self, each: Acknowledge) -> bool:
        try:
            await self._lanes[each.priority].acknowledge(each.acknowledgement)
        except BusError:
            return False
        return True
