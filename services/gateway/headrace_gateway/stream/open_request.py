"""One open request at the gateway: workers' streams write its output, API calls read it.

`OpenRequest` is the asynchronous part around an `OutputLog`: it wakes the readers, and knows the
worker slots that are bound to the request, to cancel them at once. The first reader that comes to
the end settles the request; the last reader that leaves before the end abandons it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from headrace.clock import Clock
from headrace.errors import HeadraceError, RequestCancelled
from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1 import common_pb2
from headrace_gateway.base.metrics import LaneMeter
from headrace_gateway.request.generation import Event, Generation, Queued, Tokens
from headrace_gateway.stream.output_log import OutputCursor, OutputLog
from headrace_gateway.stream.stored_record import without_prompt

STORE_WAIT_S = 0.5
"""How long an end waits for its result to be stored: a millisecond, unless the broker is away."""


class Line(Protocol):
    """A worker's stream, as its slot bindings use it."""

    def cancel(self, slot: int) -> None:
        """Send the worker a cancellation of this slot, and unbind it."""
        ...


@dataclass(slots=True, eq=False)
class SlotBinding:
    """One slot of one worker's stream, bound to one choice of one attempt."""

    line: Line
    slot: int
    open_request: OpenRequest
    choice: int
    attempt: int


class OpenRequest:
    """`on_close` is called exactly once: when a reader settles, or when the last reader leaves."""

    def __init__(
        self,
        record: RequestRecord,
        deadline_s: float,
        clock: Clock,
        on_close: Callable[[OpenRequest, common_pb2.RequestOutcome], None],
    ) -> None:
        self.record = without_prompt(record)
        self.deadline_s = deadline_s
        """On the monotonic clock."""
        sampling = record.sampling
        prompt_logprobs = record.prompt_tokens - 1 if sampling.HasField("prompt_logprobs") else None
        self.output = OutputLog(
            choices=max(1, record.n),
            max_tokens=sampling.max_tokens,
            logprobs=sampling.HasField("logprobs"),
            prompt_logprobs=prompt_logprobs,
        )
        self.closed = asyncio.Event()
        """Set once settled or abandoned."""
        self.result_stored = asyncio.Event()
        """Set once its result is stored, or will not be."""
        self.sequence = 0
        """Sequence number of its record in the broker's stream; 0 while unknown."""
        self.queued = Queued()
        """The place in the queue that was last reported."""
        self.reported_s = clock.monotonic_s()
        """When that was; before the first report, when the request was opened."""
        self.first_token_ms = 0
        """From its arrival to its first token; 0 before that, or where another gateway had it."""
        self.waits_for_quota = False
        """It runs nowhere until the quota keeper grants it more output."""
        self._clock = clock
        self._on_close = on_close
        self._bindings: set[SlotBinding] = set()
        self._readers: set[OutputReader] = set()
        self._meter: LaneMeter | None = None
        if not record.probe:
            self._meter = LaneMeter(record.model, record.priority, clock.monotonic_s())

    @property
    def request_id(self) -> str:
        return self.record.request_id

    # For readers

    def reader(self) -> OutputReader:
        """Return one more reader, which reads from the beginning."""
        # Only the first reader is measured, so that no token counts twice.
        measure = self._measure if not self._readers else None
        reader = OutputReader(self, measure)
        self._readers.add(reader)
        return reader

    @property
    def readers(self) -> int:
        return len(self._readers)

    def end_choice(self, choice: int) -> None:
        """End a choice in which a reader found a stop string."""
        self._cancel_bindings(lambda binding: binding.choice == choice)
        self.wake()

    def leave(self, reader: OutputReader) -> None:
        """Remove a reader; if it was the last one, abandon the request."""
        self._readers.discard(reader)
        if not self._readers:
            self.abandon()

    def abandon(self) -> None:
        """Cancel the request, as no reader is left: stop its workers and free what is held."""
        error = RequestCancelled(f"the client of request {self.request_id} disconnected")
        usage = common_pb2.Usage(
            prompt_tokens=self.record.prompt_tokens,
            output_tokens=self.output.output_tokens,
            cached_prompt_tokens=self.output.cached_prompt,
        )
        self.close(common_pb2.RequestOutcome(usage=usage, error=to_status(error)))

    def close(self, outcome: common_pb2.RequestOutcome) -> None:
        """Close the request with this outcome. Other readers still read to its end."""
        # Synchronous, so that a cancelled caller cannot leave it half done.
        if self.closed.is_set():
            return
        self.closed.set()
        self.output.fail(RequestCancelled(f"request {self.request_id} is closed"))
        self._cancel_bindings(lambda _: True)
        self.wake()
        self._on_close(self, outcome)

    async def billable(self) -> None:
        """Return once the result of a closed request that is billed, or whose response is stored,
        is stored, or after `STORE_WAIT_S`.

        Before its caller has the end: if this gateway dies then, the request is billed by the
        result, for what the caller has. And a caller that has a response may refer to it.
        """
        if self.record.key_id or self.record.person or self.record.stored_response:
            with suppress(TimeoutError):
                async with asyncio.timeout(STORE_WAIT_S):
                    await self.result_stored.wait()

    def release(self, error: HeadraceError) -> None:
        """Close the request here, unsettled: another gateway continues it."""
        self.closed.set()
        self.result_stored.set()
        self.fail(error)

    def _measure(self, events: list[Event]) -> None:
        count = sum(len(e.token_ids) for e in events if isinstance(e, Tokens))
        if count and not self.first_token_ms and not self.record.held_since_attempt:
            since_ms = 1000 * self._clock.unix_s() - self.record.arrival.ToMilliseconds()
            self.first_token_ms = max(1, round(since_ms))
        if self._meter is not None:
            self._meter.relayed(count, self._clock.monotonic_s())

    # For the mesh

    @property
    def is_waiting(self) -> bool:
        """Whether no slot is bound: it is in its lane, or has just been dispatched."""
        return not self._bindings and not self.output.ended

    def report_queued(self, queued: Queued) -> None:
        """Report to the readers the place in the queue."""
        self.queued, self.reported_s = queued, self._clock.monotonic_s()
        for reader in self._readers:
            reader.report_queued()

    def wake(self) -> None:
        """Wake the readers, so that they drain the output log."""
        for reader in self._readers:
            reader.wake()

    def bind(self, binding: SlotBinding) -> bool:
        """Accept this slot's output from now on; False: its stream must cancel the slot.

        Raises:
            SenderFault: the request has no such choice.
        """
        before = self.output.newest_attempt
        try:
            accepted = self.output.open(binding.choice, binding.attempt)
        finally:
            if self.output.newest_attempt != before:
                self._cancel_bindings(lambda old: old.attempt < binding.attempt)
        if accepted:
            self._bindings.add(binding)
        return accepted

    def unbind(self, binding: SlotBinding) -> None:
        """Remove a binding whose slot has ended or was reused, or whose stream broke."""
        self._bindings.discard(binding)

    def has_binding(self, choice: int, attempt: int) -> bool:
        """Return whether a slot is bound to this choice and attempt."""
        return any(f.choice == choice and f.attempt == attempt for f in self._bindings)

    def fail(self, error: HeadraceError) -> None:
        """End the request with an error, unless it has ended."""
        if self.output.fail(error):
            self._cancel_bindings(lambda _: True)
            self.wake()

    def fence(self, attempt: int) -> None:
        """Accept nothing more of attempts up to this one, and cancel their slots."""
        self.output.fence(attempt)
        self._cancel_bindings(lambda binding: binding.attempt <= attempt)

    def resume_point(self, error: HeadraceError | None = None) -> ResumePoint:
        """Return the output so far; it stays current only after a fence."""
        causes = ParkCause
        waits = self.waits_for_quota
        return ResumePoint(
            request_id=self.request_id,
            attempt=self.output.newest_attempt,
            progress=self.output.progress(),
            error=None if error is None else to_status(error),
            cause=causes.PARK_CAUSE_QUOTA if waits else causes.PARK_CAUSE_LOST,
        )

    @property
    def bindings(self) -> int:
        return len(self._bindings)

    def _cancel_bindings(self, which: Callable[[SlotBinding], bool]) -> None:
        for binding in [binding for binding in self._bindings if which(binding)]:
            self._bindings.discard(binding)
            binding.line.cancel(binding.slot)


class OutputReader(Generation):
    """One reader of an open request."""

    def __init__(
        self, open_request: OpenRequest, measure: Callable[[list[Event]], None] | None
    ) -> None:
        super().__init__(open_request.record)
        self._open_request, self._measure = open_request, measure
        self._reading = OutputCursor(open_request.output)
        self._news = asyncio.Event()
        self._news.set()
        self._is_queue_news = False

    def wake(self) -> None:
        self._news.set()

    def report_queued(self) -> None:
        """Yield the place in the queue, which has changed."""
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
                yield [self._open_request.queued]
            self._is_queue_news = False

    def arrived(self) -> list[Event]:
        return self._reading.drain()

    def end_choice(self, choice: int, tokens: int) -> None:
        self._reading.stop(choice, tokens)
        self._open_request.end_choice(choice)

    async def settle(self, outcome: common_pb2.RequestOutcome) -> None:
        self._open_request.close(outcome)
        await self._open_request.billable()

    async def abandon(self) -> None:
        self._open_request.leave(self)
