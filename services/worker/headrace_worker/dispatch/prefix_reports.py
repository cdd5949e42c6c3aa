"""Reports to schedulers of the prefix blocks that an engine holds in its cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from headrace.bus import Messages, subjects
from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace.prefixes import short_hash
from headrace_worker.engine.base.loaded_model import CachedBlocks
from headrace_worker.runtime.worker import Worker

MIN_INTERVAL_S = 0.25
"""Shortest time between two reports. Too small: work for engine, bus and leader under load. Too
large: a conversation's next turn may come before its worker has reported what it holds."""
FULL_INTERVAL_S = 10.0
"""Time between two full reports: for so long a new leader may know nothing of an idle worker's."""


@dataclass(frozen=True, slots=True)
class BlockDelta:
    held: list[int]
    dropped: list[int]


class ReportedBlocks:
    """The names of blocks that were reported as held, at most `limit`.

    What does not fit is reported once others are dropped. Prefixes come before what follows on
    them, so what has been reported is of use whatever is left out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[int, None] = {}

    @property
    def names(self) -> Collection[int]:
        return self._names.keys()

    def update(self, held: list[bytes]) -> BlockDelta:
        """Return what to report now that these are held, prefixes first."""
        now = dict.fromkeys(map(short_hash, held))
        dropped = [name for name in self._names if name not in now]
        for name in dropped:
            del self._names[name]
        room = self._limit - len(self._names)
        new = [name for name in now if name not in self._names][:room]
        self._names.update(dict.fromkeys(new))
        return BlockDelta(new, dropped)


class PrefixReporter:
    """Publishes what an engine holds, while that changes."""

    def __init__(
        self, bus: Messages, worker: Worker, model: str, cached_blocks: CachedBlocks, *, limit: int
    ) -> None:
        self._bus, self._worker, self._model = bus, worker, model
        self._cached_blocks, self._blocks = cached_blocks, ReportedBlocks(limit)

    async def run(self, now_s: Callable[[], float]) -> None:
        """Report until cancelled."""
        seen, full_s = -1, float("-inf")
        while True:
            steps, full = self._worker.pump.statistics().steps, now_s() - full_s >= FULL_INTERVAL_S
            if steps != seen or full:
                seen = steps
                await self._report(full=full)
            if full:
                full_s = now_s()
            await asyncio.sleep(MIN_INTERVAL_S)

    async def _report(self, *, full: bool) -> None:
        delta = self._blocks.update(await self._worker.pump.do(self._cached_blocks))
        if not (full or delta.held or delta.dropped):
            return
        report = PrefixReport(worker_id=self._worker.worker_id, model=self._model, full=full)
        report.held.extend(self._blocks.names if full else delta.held)
        report.dropped.extend(() if full else delta.dropped)
        await self._bus.publish(subjects.PREFIX_REPORTS, report.SerializeToString())
