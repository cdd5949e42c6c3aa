"""Acknowledgements on their way to the broker, repeated until they are confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.bus import BusError, LaneReader
from headrace_scheduler.base import metrics

AT_ONCE = 64
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class _Due:
    request_id: str
    lane: LaneReader
    acknowledgement: str
    confirmed: asyncio.Future[None]


class Acknowledgements:
    """Bounded by the lanes' bounds: one per message that was read and has ended."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._wake = asyncio.Event()
        self._unconfirmed: dict[str, asyncio.Future[None]] = {}

    def add(self, request_id: str, lane: LaneReader, acknowledgement: str) -> None:
        confirmed = asyncio.get_running_loop().create_future()
        self._unconfirmed[request_id] = confirmed
        self._due.append(_Due(request_id, lane, acknowledgement, confirmed))
        self._wake.set()

    async def confirmed(self, request_ids: Iterable[str]) -> None:
        """Wait until none of these is on its way. Give it a deadline."""
        waits = [self._unconfirmed[i] for i in request_ids if i in self._unconfirmed]
        await asyncio.gather(*(asyncio.shield(wait) for wait in waits))

    @property
    def none_unconfirmed(self) -> bool:
        return not self._unconfirmed

    async def all_confirmed(self) -> None:
        await self.confirmed(list(self._unconfirmed))

    async def run(self) -> None:
        """Send what is due, as long as it is not cancelled."""
        while True:
            await self._wake.wait()
            batch, self._due = self._due[:AT_ONCE], self._due[AT_ONCE:]
            failed = [d for d in await asyncio.gather(*map(_send, batch)) if d is not None]
            self._due.extend(failed)
            for due in batch:
                if due.confirmed.done() and self._unconfirmed.get(due.request_id) is due.confirmed:
                    del self._unconfirmed[due.request_id]
            if failed:
                metrics.retried.labels("acknowledge").inc(len(failed))
                await asyncio.sleep(RETRY_S)
            elif not self._due:
                self._wake.clear()


async def _send(due: _Due) -> _Due | None:
    """The acknowledgement again if it was not confirmed."""
    try:
        await due.lane.acknowledge(due.acknowledgement)
    except BusError:
        return due
    due.confirmed.set_result(None)
    return None
