"""The answer of a request that is under way, for an equal request: one is computed, both read it.

If what is shared fails or is cancelled, the reader goes on with a request of its own. That makes
the same tokens again, of which those are left out that the reader has:

    leader     7 8 9 - cancelled
    follower   7 8 9            then its own request: (7 8 9) 10 11, the end
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from headrace.clock import Clock
from headrace.errors import DeadlineExceeded, HeadraceError
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Queued,
    Tokens,
)


class SharedOutput(Generation):
    """One reader of a request that another call has opened here."""

    def __init__(
        self,
        shared: Generation,
        open_own: Callable[[], Awaitable[Generation]],
        *,
        clock: Clock,
        timeout_s: float,
        on_end: Callable[[RequestOutcome | None, bool], None],
    ) -> None:
        """
        Args:
            shared: a reader of it, which this one owns.
            open_own: opens the reader's own request.
            timeout_s: of the reader's request, from now; its own request has its own deadline.
            on_end: called once, with the outcome if the reader came to an end, and with whether all
                of it was shared.
        """
        super().__init__(shared.record)
        self._source, self._open_own = shared, open_own
        self._clock, self._ends_s = clock, clock.monotonic_s() + timeout_s
        self._on_end = on_end
        self._has_failed = self._is_own = self._is_over = False
        self._read: dict[int, int] = {}
        """How many tokens of each choice the reader has."""
        self._ended: set[int] = set()
        """Choices whose end the reader has."""

    async def events(self) -> AsyncIterator[list[Event]]:
        async for events in self._shared_events():
            yield events
        if not self._has_failed:
            return
        await self._source.abandon()
        try:
            self._source = await self._open_own()
        except HeadraceError as error:
            self._source = Generation(self.record)
            yield [Failed(error)]
            return
        self._is_own = True
        async for events in self._source.events():
            if rest := list(self._unread(events)):
                yield rest

    async def _shared_events(self) -> AsyncIterator[list[Event]]:
        """Yield what is shared until its end, its failure, or the reader's own deadline."""
        shared = self._source.events()
        while True:
            try:
                async with asyncio.timeout(self._ends_s - self._clock.monotonic_s()):
                    events = await anext(shared)
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield [Failed(DeadlineExceeded("the request's deadline passed while it ran"))]
                return
            if any(isinstance(event, Failed) for event in events):
                self._has_failed = True
                return
            self._count(events)
            yield events

    def arrived(self) -> list[Event]:
        events = self._source.arrived()
        return list(self._unread(events)) if self._is_own else events

    def end_choice(self, choice: int, tokens: int) -> None:
        self._ended.add(choice)
        self._source.end_choice(choice, tokens)

    async def settle(self, outcome: RequestOutcome) -> None:
        failed = outcome.HasField("error")
        # Why not with an error: what failed this reader, as its deadline, fails no other.
        if failed and not self._is_own:
            await self._source.abandon()
        else:
            await self._source.settle(outcome)
        self._report(outcome)

    async def abandon(self) -> None:
        await self._source.abandon()
        self._report(None)

    def _report(self, outcome: RequestOutcome | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end(outcome, not self._is_own)

    def _count(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Tokens):
                self._read[event.choice] = event.first_index + len(event.token_ids)
            elif isinstance(event, ChoiceEnded):
                self._ended.add(event.choice)

    def _unread(self, events: list[Event]) -> Iterator[Event]:
        """Yield what the reader does not have yet."""
        for event in events:
            if isinstance(event, Failed | Queued):
                yield event
            elif event.choice in self._ended:
                continue
            elif isinstance(event, ChoiceEnded):
                yield event
            else:
                surplus = self._read.get(event.choice, 0) - event.first_index
                rest = event if surplus <= 0 else event.split(surplus)[1]
                if rest is not None:
                    yield rest
