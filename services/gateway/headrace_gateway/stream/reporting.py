"""Telling something to somebody until it is answered, together with all that came meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from headrace.bus import BusError

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 2.0
LARGEST_BATCH = 256


class Reporter(Generic[T]):
    """One message in flight; what is added meanwhile goes with the next.

    Nothing is given up: an item stays until `send` has returned for it. `send` may see
    an item again after a failure, so what it tells must be idempotent.
    """

    def __init__(self, name: str, send: Callable[[list[T]], Awaitable[None]]) -> None:
        self._name = name
        self._send = send
        self._waiting: list[T] = []
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> None:
        self._waiting.append(item)
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            batch = await self._until_answered()
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._news.clear()

    async def _until_answered(self) -> list[T]:
        retry_s = 0.0
        while True:
            batch = self._waiting[:LARGEST_BATCH]
            try:
                await self._send(batch)
            except BusError as error:
                if not retry_s:
                    self._log("report.unanswered", batch, str(error))
                retry_s = min(max(2 * retry_s, FIRST_RETRY_S), LONGEST_RETRY_S)
                await asyncio.sleep(retry_s)
            else:
                if retry_s:
                    self._log("report.answered", batch)
                return batch

    def _log(self, event: str, batch: list[T], error: str = "") -> None:
        facts = {"report": self._name, "items": len(batch), "error": error}
        log.warning(event, extra=facts)


class ModelReporters(Generic[T]):
    """A reporter for each model, so that a model without a leader holds up no other."""

    def __init__(self, name: str, send: Callable[[str, list[T]], Awaitable[None]]) -> None:
        self._name = name
        self._send = send
        self._reporters: dict[str, Reporter[T]] = {}
        self._unstarted: asyncio.Queue[Reporter[T]] = asyncio.Queue()

    def __len__(self) -> int:
        return sum(map(len, self._reporters.values()))

    def add(self, model: str, item: T) -> None:
        reporter = self._reporters.get(model)
        if reporter is None:

            async def send(items: list[T]) -> None:
                await self._send(model, items)

            reporter = self._reporters[model] = Reporter(f"{self._name}.{model}", send)
            self._unstarted.put_nowait(reporter)
        reporter.add(item)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                reporter = await self._unstarted.get()
                tasks.create_task(reporter.run())
