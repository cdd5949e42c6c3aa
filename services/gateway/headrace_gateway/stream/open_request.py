"""One open request at the gateway: fed by workers' streams, read by doors.

The outlet is the rim around a `OutputLog`: it wakes the readers, and it knows which slots
of which streams feed it, so that whoever must stop hears of it at once. The first of
its readers to come to the end settles it; the last to leave before that abandons it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from headrace.clock import Clock
from headrace.errors import HeadraceError, RequestCancelled
from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1 import common_pb2
from headrace_gateway.base.metrics import LaneMeter, lane_meter
from headrace_gateway.request.generation import Event, Queued, Tokens
from headrace_gateway.stream.output_log import NOTHING, LogprobsRequest, OutputLog


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """What is kept of a request once its record is in its lane."""

    request_id: str
    model: str
    priority: common_pb2.Priority.ValueType
    arrival_s: float
    """Unix time."""
    deadline_s: float
    """On the monotonic clock."""
    prompt_tokens: int
    choices: int
    max_tokens: int
    record: RequestRecord
    """Without prompt and output."""
    wishes: LogprobsRequest = NOTHING
    is_canary: bool = False
    """Ours, not a caller's: neither measured nor kept as a result."""


class Line(Protocol):
    """A worker's stream, as its feeds see it."""

    def cancel(self, slot: int) -> None:
        """Tell the worker to stop this slot, now, and forget it."""
        ...


@dataclass(slots=True, eq=False)
class SlotBinding:
    """One slot of one worker's stream, bound to one choice of one attempt."""

    line: Line
    slot: int
    outlet: OpenRequest
    choice: int
    attempt: int


class OpenRequest:
    """`on_close` is called exactly once: when a reader settles, or when the last one leaves."""

    def __init__(
        self,
        admitted: AdmittedRequest,
        clock: Clock,
        on_close: Callable[[OpenRequest, common_pb2.RequestOutcome], None],
    ) -> None:
        self.admitted = admitted
        self.relay = OutputLog(
            choices=admitted.choices, max_tokens=admitted.max_tokens, wishes=admitted.wishes
        )
        self.closed = asyncio.Event()
        """Set once settled or abandoned."""
        self.sequence = 0
        """Its place in the stream; 0 while it is not known."""
        self.queued = Queued()
        """What was last told of its wait."""
        self.told_s = clock.monotonic_s()
        """When that was; before it, when it came."""
        self._clock = clock
        self._on_close = on_close
        self._feeds: set[SlotBinding] = set()
        self._readers: set[Reader] = set()
        self._meter: LaneMeter | None = None
        if not admitted.is_canary:
            self._meter = lane_meter(admitted.model, admitted.priority, clock.monotonic_s())

    @property
    def request_id(self) -> str:
        return self.admitted.request_id

    # For doors

    def reader(self) -> Reader:
        """One more, who hears all from the beginning."""
        # The first alone is measured: what others hear is no output twice.
        measure = self._measure if not self._readers else None
        reader = Reader(self, measure)
        self._readers.add(reader)
        return reader

    @property
    def readers(self) -> int:
        return len(self._readers)

    def end_choice(self, choice: int) -> None:
        """A reader found its end."""
        self._cancel_feeds(lambda feed: feed.choice == choice)
        self.wake()

    def leave(self, reader: Reader) -> None:
        """This reader hears no more of it; the last one ends it."""
        self._readers.discard(reader)
        if not self._readers:
            self.abandon()

    def abandon(self) -> None:
        """Nobody waits for it: cancel what runs, free what is held."""
        error = RequestCancelled(f"the client of {self.request_id} left")
        usage = common_pb2.Usage(
            prompt_tokens=self.admitted.prompt_tokens, output_tokens=self.relay.output_tokens
        )
        self.close(common_pb2.RequestOutcome(usage=usage, error=to_status(error)))

    def close(self, outcome: common_pb2.RequestOutcome) -> None:
        """It ended so. Who still reads it reads to its end."""
        # Synchronous, so that a cancelled caller cannot leave it half done.
        if self.closed.is_set():
            return
        self.closed.set()
        self.relay.fail(RequestCancelled(f"{self.request_id} is closed"))
        self._cancel_feeds(lambda _: True)
        self.wake()
        self._on_close(self, outcome)

    def release(self, error: HeadraceError) -> None:
        """Others go on with it: readers are told why it ends here, and nothing is settled."""
        self.closed.set()
        self.fail(error)

    def _measure(self, events: list[Event]) -> None:
        if self._meter is not None:
            count = sum(len(e.token_ids) for e in events if isinstance(e, Tokens))
            self._meter.relayed(count, self._clock.monotonic_s())

    # For the mesh

    @property
    def is_waiting(self) -> bool:
        """Nobody feeds it: it is in its lane, or has just been given to a worker."""
        return not self._feeds and not self.relay.ended

    def tell_queued(self, queued: Queued) -> None:
        """Let the readers know where it waits."""
        self.queued, self.told_s = queued, self._clock.monotonic_s()
        for reader in self._readers:
            reader.tell_queued()

    def wake(self) -> None:
        """Let the readers drain the relay."""
        for reader in self._readers:
            reader.wake()

    def bind(self, feed: SlotBinding) -> bool:
        """Hear this feed from now on; False: it must be cancelled by its stream.

        Raises:
            SenderFault: the request has no such choice.
        """
        before = self.relay.newest
        try:
            heard = self.relay.open(feed.choice, feed.attempt)
        finally:
            if self.relay.newest != before:
                self._cancel_feeds(lambda old: old.attempt < feed.attempt)
        if heard:
            self._feeds.add(feed)
        return heard

    def unbind(self, feed: SlotBinding) -> None:
        """The feed's slot is gone: ended, reused, or its stream broke."""
        self._feeds.discard(feed)

    def is_fed(self, choice: int, attempt: int) -> bool:
        """Whether some stream still has a slot for this."""
        return any(f.choice == choice and f.attempt == attempt for f in self._feeds)

    def fail(self, error: HeadraceError) -> None:
        """End the request with an error, unless it has ended."""
        if self.relay.fail(error):
            self._cancel_feeds(lambda _: True)
            self.wake()

    def fence(self, attempt: int) -> None:
        """Hear nothing more of attempts up to this one, and stop their workers."""
        self.relay.fence(attempt)
        self._cancel_feeds(lambda feed: feed.attempt <= attempt)

    def resume_point(self, error: HeadraceError | None = None) -> ResumePoint:
        """Where the request stands; stays true only after a fence."""
        return ResumePoint(
            request_id=self.request_id,
            attempt=self.relay.newest,
            progress=self.relay.progress(),
            error=None if error is None else to_status(error),
            cause=ParkCause.PARK_CAUSE_LOST,
        )

    @property
    def feeds(self) -> int:
        return len(self._feeds)

    def _cancel_feeds(self, which: Callable[[SlotBinding], bool]) -> None:
        for feed in [feed for feed in self._feeds if which(feed)]:
            self._feeds.discard(feed)
            feed.line.cancel(feed.slot)


class Reader:
    """A `Generation`: one reader of an outlet."""

    def __init__(self, outlet: OpenRequest, measure: Callable[[list[Event]], None] | None) -> None:
        self._outlet, self._measure = outlet, measure
        self._reading = outlet.relay.reading()
        self._news = asyncio.Event()
        self._news.set()
        self._is_queue_news = False

    @property
    def request_id(self) -> str:
        return self._outlet.request_id

    @property
    def arrival_s(self) -> float:
        return self._outlet.admitted.arrival_s

    def wake(self) -> None:
        self._news.set()

    def tell_queued(self) -> None:
        """Where it waits has become known, or another place."""
        self._is_queue_news = True
        self.wake()

    async def events(self) -> AsyncIterator[list[Event]]:
        # No deadline of its own: the watchdog fails every request that is overdue.
        while not self._reading.over:
            await self._news.wait()
            self._news.clear()
            if events := self._reading.drain():
                if self._measure is not None:
                    self._measure(events)
                yield events
            elif self._is_queue_news:
                yield [self._outlet.queued]
            self._is_queue_news = False

    def end_choice(self, choice: int) -> None:
        self._reading.stop(choice)
        self._outlet.end_choice(choice)

    async def settle(self, outcome: common_pb2.RequestOutcome) -> None:
        self._outlet.close(outcome)

    async def abandon(self) -> None:
        self._outlet.leave(self)
