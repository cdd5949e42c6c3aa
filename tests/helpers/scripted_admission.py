"""An `Admission` without a mesh: it yields the events of a script, and records how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import HeadraceError, LaneFull
from headrace.internal.v1.quota_pb2 import LimitState
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.common_pb2 import FinishReason, Priority, RequestOutcome
from headrace_gateway.quota.call_limits import note_limits
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Tokens,
    ValidRequest,
)
from headrace_gateway.request.payer import Payer, TokenRange

NOW_MS = 1_800_000_000_000
"""When limits are noted."""
Gate = asyncio.Event
"""In a script: the next events follow once it is set."""
Script = Iterable[list[Event]]
GatedScript = Iterable[list[Event] | Gate]

STOP = FinishReason.FINISH_REASON_STOP
LENGTH = FinishReason.FINISH_REASON_LENGTH


class ScriptedGeneration(Generation):
    """Yields its script's lists one by one; then waits, as a mesh would, for every choice's end."""

    def __init__(
        self, request: ValidRequest, script: GatedScript, stored: asyncio.Event | None = None
    ) -> None:
        arrival = Timestamp(seconds=1_700_000_000)
        super().__init__(RequestRecord(request_id=request.request_id, arrival=arrival))
        self.request, self.script, self._stored = request, script, stored
        self.settled: list[RequestOutcome] = []
        self.abandoned = 0
        self.ended_here: list[int] = []
        self._open: set[int] = set()
        self._ended = asyncio.Event()

    async def events(self) -> AsyncIterator[list[Event]]:
        self._open = set(range(self.request.n))
        for events in self.script:
            if isinstance(events, Gate):
                await events.wait()
                continue
            yield events
            for event in events:
                if isinstance(event, ChoiceEnded):
                    self._open.discard(event.choice)
                if isinstance(event, Failed):
                    return
            if not self._open:
                return
            await asyncio.sleep(0)
        if self._open:
            await self._ended.wait()

    def end_choice(self, choice: int, tokens: int) -> None:
        self.ended_here.append(choice)
        self._open.discard(choice)
        if not self._open:
            self._ended.set()

    async def settle(self, outcome: RequestOutcome) -> None:
        self.settled.append(outcome)
        if self._stored is not None:
            await self._stored.wait()

    async def abandon(self) -> None:
        self.abandoned += 1

    @property
    def ends(self) -> int:
        """How often it was ended; once is right."""
        return len(self.settled) + self.abandoned


@dataclass
class ScriptedAdmission:
    """`script` returns the events of each request."""

    script: Callable[[ValidRequest], GatedScript]
    refusal: HeadraceError | None = None
    """Raised by `check`."""
    bound: int | None = None
    """So many generations are opened; for the next one the lane is full."""
    late_refusals: list[HeadraceError] = field(default_factory=list)
    """Raised one after the other by `open`, once six generations have been opened."""
    stored: asyncio.Event | None = None
    """Results are stored once it is set; None: at once."""
    most_open: int = 0
    checked: list[tuple[str, Priority.ValueType, float]] = field(default_factory=list)
    generations: list[ScriptedGeneration] = field(default_factory=list)

    quota: int | None = None
    """So many requests the caller's limits can admit at one moment."""
    limits: list[LimitState] = field(default_factory=list)
    """Of every caller."""
    quota_refusal: HeadraceError | None = None
    """Raised by `open`."""

    def check(
        self,
        model: str,
        priority: Priority.ValueType,
        *,
        payer: Payer,
        tokens: TokenRange,
        patience_s: float,
    ) -> None:
        self.checked.append((model, priority, patience_s))
        if self.refusal is not None:
            raise self.refusal

    def most_at_once(self, payer: Payer) -> int | None:
        return self.quota

    async def open_all(self, requests: Sequence[ValidRequest]) -> list[Generation]:
        opened: list[Generation] = []
        try:
            for request in requests:
                opened.append(await self.open(request))
        except HeadraceError:
            for generation in opened:
                await generation.abandon()
            raise
        return opened

    async def open(self, request: ValidRequest) -> ScriptedGeneration:
        note_limits(self.limits, NOW_MS)
        if self.quota_refusal is not None:
            raise self.quota_refusal
        if self.bound is not None and len(self.generations) >= self.bound:
            raise LaneFull(f"the lane is full at {self.bound}", retry_after_s=1)
        if self.late_refusals and len(self.generations) >= 6:
            raise self.late_refusals.pop(0)
        generation = ScriptedGeneration(request, self.script(request), self.stored)
        self.generations.append(generation)
        self.most_open = max(self.most_open, self.open_now)
        return generation

    @property
    def open_now(self) -> int:
        return sum(not each.ends for each in self.generations)

    @property
    def last(self) -> ScriptedGeneration:
        return self.generations[-1]


def one_by_one(choice: int, token_ids: list[int]) -> list[list[Event]]:
    """Each token in a list of its own, then the choice's end."""
    events: list[list[Event]] = [
        [Tokens(choice, index, [token_id])] for index, token_id in enumerate(token_ids)
    ]
    return [*events, [ChoiceEnded(choice, STOP)]]
