"""Load on a mesh: clients with one request after another, or requests at a steady rate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.chaos.clients.batches import BatchClient
from headrace.chaos.clients.streaming import ChaosClient
from headrace.chaos.history import EventLog
from headrace.chaos.requests import READ_AT_THE_END, Api, ChaosRequest
from headrace.chaos.stream_recorder import StreamRecorder

_CLOSED_EARLY = 0.08
"""Share of requests whose client closes the stream early."""
_CLOSED_WITHIN_DELTAS = 40
MAX_OPEN = 512
"""Requests open at once at a steady rate; further ones are delayed."""
_RETRY_AFTER_S = (0.2, 1.0)
_SLOW_PAUSE_S = 1.0
_COPIES = 3
"""How often a batch has each request."""


@dataclass(frozen=True, slots=True)
class Traffic:
    requests: Sequence[ChaosRequest]
    clients: Mapping[Api, Sequence[ChaosClient]]
    """In turn: each with a key of its own."""
    batch_clients: Sequence[BatchClient]
    """Each with one of these keys; empty: no batches are sent."""
    log: EventLog
    seed: int

    async def send_each_once(self, *, streams: int) -> None:
        """Send every request once, as the reference of later ones."""
        unsent = iter(self._single)

        async def client() -> None:
            for request in unsent:
                await self._send(request, StreamRecorder(self.log, request, disturbed=False))

        await _all(client() for _ in range(min(streams, len(self.requests))))
        if rows := self._batched:
            await self._send_batch(self.batch_clients[0], rows, disturbed=False)

    async def send_batches(self, stop: asyncio.Event) -> None:
        """Send batches until `stop`, one after another with each key; return once all of them have
        ended."""
        await _all(self._send_batches(number, stop) for number in range(len(self.batch_clients)))

    async def send_in_streams(self, stop: asyncio.Event, *, streams: int) -> None:
        """Send until `stop`, and return when every open stream has ended."""
        await _all(self._client(number, stop) for number in range(streams))

    async def send_at_rate(self, stop: asyncio.Event, *, per_s: float) -> None:
        """As `send_in_streams`, but send whether or not earlier requests have ended."""
        rng = random.Random(f"arrivals {self.seed}")
        free = asyncio.Semaphore(MAX_OPEN)

        async def one() -> None:
            await self._send_one(rng)
            free.release()

        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await asyncio.sleep(rng.expovariate(per_s))
                await free.acquire()
                group.create_task(one())

    async def read_slowly(self, number: int) -> None:
        """Send one of the longest requests and read it more slowly than it is generated."""
        read = [each for each in self.requests if each.api not in READ_AT_THE_END]
        longest = sorted(read, key=lambda each: -int(each.sampling["max_tokens"]))
        request = longest[number % min(4, len(longest))]
        recorder = StreamRecorder(self.log, request, disturbed=True)
        await self._send(request, recorder, pause_s=_SLOW_PAUSE_S)

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        rng = random.Random(f"client {self.seed} {number}")
        while not stop.is_set():
            if not await self._send_one(rng):
                await asyncio.sleep(rng.uniform(*_RETRY_AFTER_S))

    async def _send_one(self, rng: random.Random) -> bool:
        """Send a random request; return False if it was rejected."""
        request = rng.choice(self._single)
        closes = rng.random() < _CLOSED_EARLY
        close_after = rng.randint(1, _CLOSED_WITHIN_DELTAS) if closes else None
        recorder = StreamRecorder(self.log, request, disturbed=True, close_after=close_after)
        await self._send(request, recorder)
        return not recorder.was_rejected

    async def _send(
        self, request: ChaosRequest, recorder: StreamRecorder, *, pause_s: float = 0.0
    ) -> None:
        clients = self.clients[request.api]
        client = clients[recorder.stream % len(clients)]
        await client.send(request, recorder, pause_s=pause_s)

    @property
    def _single(self) -> list[ChaosRequest]:
        return [request for request in self.requests if request.api is not Api.BATCH]

    @property
    def _batched(self) -> list[ChaosRequest]:
        return [request for request in self.requests if request.api is Api.BATCH]

    async def _send_batches(self, number: int, stop: asyncio.Event) -> None:
        rng = random.Random(f"batches {self.seed} {number}")
        while not stop.is_set():
            rows = self._batched * _COPIES
            rng.shuffle(rows)
            await self._send_batch(self.batch_clients[number], rows, disturbed=True)
            await asyncio.sleep(rng.uniform(*_RETRY_AFTER_S))

    async def _send_batch(
        self, client: BatchClient, rows: Sequence[ChaosRequest], *, disturbed: bool
    ) -> None:
        await client.send(
            [(each, StreamRecorder(self.log, each, disturbed=disturbed)) for each in rows]
        )


async def _all(clients: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
