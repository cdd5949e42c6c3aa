"""Keeps asking: a number of clients, each with one request after another, or a steady rate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.chaos.clients import ChaosClient
from headrace.chaos.history import EventLog
from headrace.chaos.requests import Api, ChaosRequest
from headrace.chaos.stream_recorder import StreamRecorder

_LEAVERS = 0.08
"""Share of requests whose client closes the stream early."""
_LEAVE_WITHIN = 40
"""Pieces."""
MAX_OPEN = 512
"""At a steady rate, requests at once; what would come beyond them comes later."""
_AGAIN_AFTER_S = (0.2, 1.0)
"""After a refusal."""
_SLOW_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    asks: Sequence[ChaosRequest]
    doors: Mapping[Api, ChaosClient]
    ledger: EventLog
    seed: int

    async def undisturbed(self, *, streams: int) -> None:
        """Every ask once: what it says when nothing is broken."""
        left = iter(self.asks)

        async def client() -> None:
            for ask in left:
                pen = StreamRecorder(self.ledger, ask, disturbed=False)
                await self.doors[ask.door].ask(ask, pen)

        await _together(client() for _ in range(min(streams, len(self.asks))))

    async def until(self, stop: asyncio.Event, *, streams: int) -> None:
        """Until `stop`, and then until every open stream has come to its end."""
        await _together(self._client(number, stop) for number in range(streams))

    async def at_rate(self, stop: asyncio.Event, *, per_s: float) -> None:
        """As `until`, with requests that come whether or not earlier ones have ended."""
        rng = random.Random(f"arrivals {self.seed}")
        room = asyncio.Semaphore(MAX_OPEN)

        async def one() -> None:
            await self._ask_one(rng)
            room.release()

        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await asyncio.sleep(rng.expovariate(per_s))
                await room.acquire()
                group.create_task(one())

    async def slowly(self, number: int) -> None:
        """One reader that cannot keep up, with the longest of the asks."""
        longest = sorted(self.asks, key=lambda ask: -int(ask.sampling["max_tokens"]))
        ask = longest[number % min(4, len(longest))]
        pen = StreamRecorder(self.ledger, ask, disturbed=True)
        await self.doors[ask.door].ask(ask, pen, pause_s=_SLOW_PAUSE_S)

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        rng = random.Random(f"client {self.seed} {number}")
        while not stop.is_set():
            if not await self._ask_one(rng):
                await asyncio.sleep(rng.uniform(*_AGAIN_AFTER_S))

    async def _ask_one(self, rng: random.Random) -> bool:
        """False if it was refused."""
        ask = rng.choice(self.asks)
        leaves = rng.random() < _LEAVERS
        leave_after = rng.randint(1, _LEAVE_WITHIN) if leaves else None
        pen = StreamRecorder(self.ledger, ask, disturbed=True, leave_after=leave_after)
        await self.doors[ask.door].ask(ask, pen)
        return not pen.was_refused


async def _together(clients: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
