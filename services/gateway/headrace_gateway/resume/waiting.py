"""Waits for the end of a request, wherever it is, without polling.

A request that is open here ends here. The result of one that is elsewhere is published as it is
stored, whichever gateway or leader does so in the end: so the death of the gateway that holds it
changes nothing for who waits here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from headrace.bus import OnMessage, Subscription, subjects
from headrace.clock import Clock
from headrace.errors import BrokerUnavailable, GatewayUnreachable, RateLimitExceeded
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace_gateway.resume.location import Location

MAX_WAIT_S = 60.0
"""Of one call: far below the times after which proxies cut silent calls."""
MAX_WAITING = 1000
"""Calls of one tenant that wait at this gateway: each holds a subscription."""
LOOK_AGAIN_S = 10.0
"""How often a request that is elsewhere is located again: a published result can get lost."""


class Directory(Protocol):
    """As `ports.Directory` has them."""

    async def near(self, key: str) -> Location | None: ...

    async def locate(self, key: str) -> Location: ...


class Subscriptions(Protocol):
    """Of the bus."""

    async def subscribe(self, subject: str, on_message: OnMessage) -> Subscription: ...


class EndWaiter:
    def __init__(self, directory: Directory, bus: Subscriptions, clock: Clock) -> None:
        self._directory, self._bus, self._clock = directory, bus, clock
        self._leaving = asyncio.Event()
        self._waiting = Counter[str]()
        """How many calls wait, by tenant."""

    def leave(self) -> None:
        """Let all calls that wait return, now and from now on: this gateway stops."""
        self._leaving.set()

    async def wait(self, key: str, wait_s: float) -> Location:
        """Return where a request is once it has ended, or after `wait_s`.

        Raises:
            HeadraceError: as `ports.Directory.locate`, at once or at the end.
            RateLimitExceeded: MAX_WAITING calls of the tenant wait here.
        """
        tenant, _, _ = key.rpartition("/")
        if self._waiting[tenant] >= MAX_WAITING:
            raise RateLimitExceeded(
                f"{MAX_WAITING} calls of this tenant wait for ends of requests already: wait for"
                " fewer at a time, or ask without wait",
                retry_after_s=1.0,
            )
        self._waiting[tenant] += 1
        try:
            return await self._wait(key, wait_s)
        finally:
            self._waiting[tenant] -= 1
            self._waiting += Counter()  # without those that are 0

    async def _wait(self, key: str, wait_s: float) -> Location:
        ends_s = self._clock.monotonic_s() + wait_s
        while (left_s := ends_s - self._clock.monotonic_s()) > 0 and not self._leaving.is_set():
            near = await self._directory.near(key)
            if near is None:
                return await self._wait_for_result(key, ends_s)
            if near.open_request is None:
                return near
            await self._first_of(near.open_request.closed, left_s)
        return await self._directory.locate(key)

    async def _wait_for_result(self, key: str, ends_s: float) -> Location:
        """Wait for the end of a request that is not open here."""
        async with self._published(key) as published:
            # Why after the subscription: what was stored before is found here.
            location = await self._directory.locate(key)
            while (left_s := ends_s - self._clock.monotonic_s()) > 0:
                if location.result is not None or self._leaving.is_set():
                    return location
                await self._first_of(published.event, min(left_s, LOOK_AGAIN_S))
                if published.result is not None:
                    return Location(result=published.result)
                try:
                    location = await self._directory.locate(key)
                except (GatewayUnreachable, BrokerUnavailable):
                    # Its gateway or leader has just died: the next one will know it.
                    if self._clock.monotonic_s() >= ends_s:
                        raise
            return location

    async def _first_of(self, event: asyncio.Event, timeout_s: float) -> None:
        """Return once the event is set, this gateway leaves, or the time has passed."""
        waiting = [asyncio.create_task(each.wait()) for each in (event, self._leaving)]
        try:
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    @asynccontextmanager
    async def _published(self, key: str) -> AsyncIterator[_Published]:
        published = _Published()
        subscription = await self._bus.subscribe(subjects.ended(key), published.receive)
        try:
            yield published
        finally:
            await subscription.close()


class _Published:
    """The result of one request, once it is published."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.result: ResultRecord | None = None

    def receive(self, payload: bytes) -> None:
        self.result = ResultRecord.FromString(payload)
        self.event.set()
