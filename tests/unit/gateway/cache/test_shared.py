"""Who shares a request gets all of its output, each token once, whatever becomes of the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from headrace.clock import SystemClock
from headrace.errors import HeadraceError, LaneFull, RequestCancelled
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.common_pb2 import FINISH_REASON_LENGTH, RequestOutcome
from headrace_gateway.cache.shared import SharedOutput
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens

CHOICES, TOKENS = 2, 12
CANCELLED = RequestCancelled("the other caller has cancelled it")


@dataclass
class Scripted(Generation):
    """Yields its lists, and then waits for ever unless they have the end."""

    lists: Sequence[list[Event]] = ()
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(RequestRecord(request_id="leader"))

    async def events(self) -> AsyncIterator[list[Event]]:
        for events in self.lists:
            yield events
        if not self.lists:
            await asyncio.Event().wait()

    async def settle(self, outcome: RequestOutcome) -> None:
        self.ended.append("settled")

    async def abandon(self) -> None:
        self.ended.append("abandoned")


def output(cuts: Sequence[int]) -> list[list[Event]]:
    """The same output every time, in lists that end at `cuts`."""
    bounds = [0, *sorted(set(cuts)), TOKENS]
    lists: list[list[Event]] = []
    for first, end in itertools.pairwise(bounds):
        if first < end:
            lists.append(
                [Tokens(c, first, [100 * c + i for i in range(first, end)]) for c in range(CHOICES)]
            )
    lists.append([ChoiceEnded(c, FINISH_REASON_LENGTH) for c in range(CHOICES)])
    return lists


@dataclass
class Reader:
    own: Sequence[list[Event]]
    refusal: HeadraceError | None = None
    opened: int = 0
    reports: list[tuple[bool, bool]] = field(default_factory=list)
    own_output: Scripted | None = None

    async def open_own(self) -> Generation:
        self.opened += 1
        if self.refusal is not None:
            raise self.refusal
        self.own_output = Scripted(self.own)
        return self.own_output

    def shared(self, leader: Generation, timeout_s: float = 60.0) -> SharedOutput:
        def on_end(outcome: RequestOutcome | None, shared: bool) -> None:
            self.reports.append((outcome is not None, shared))

        return SharedOutput(
            leader, self.open_own, clock=SystemClock(), timeout_s=timeout_s, on_end=on_end
        )


async def read(generation: Generation) -> tuple[dict[int, list[int]], list[int], list[Failed]]:
    tokens: dict[int, list[int]] = {choice: [] for choice in range(CHOICES)}
    ends, failures = list[int](), list[Failed]()
    async for events in generation.events():
        for event in events:
            if isinstance(event, Tokens):
                assert event.first_index == len(tokens[event.choice]), "no gap, no repeat"
                tokens[event.choice] += event.token_ids
            elif isinstance(event, ChoiceEnded):
                ends.append(event.choice)
            elif isinstance(event, Failed):
                failures.append(event)
    return tokens, ends, failures


WHOLE = {choice: [100 * choice + i for i in range(TOKENS)] for choice in range(CHOICES)}
CUTS = st.lists(st.integers(1, TOKENS - 1))


@given(CUTS, CUTS, st.integers(0, 14))
async def test_wherever_the_other_fails_the_reader_gets_all_of_it_once(
    leaders: list[int], own: list[int], at: int
) -> None:
    lists = output(leaders)
    leader = Scripted([*lists[:at], [Failed(CANCELLED)]] if at < len(lists) else lists)
    reader = Reader(output(own))
    shared = reader.shared(leader)
    assert await read(shared) == (WHOLE, [0, 1], [])
    await shared.settle(RequestOutcome())
    failed = at < len(lists)
    assert reader.opened == failed
    assert reader.reports == [(True, not failed)]
    assert leader.ended == (["abandoned"] if failed else ["settled"])
    assert reader.own_output is None or reader.own_output.ended == ["settled"]


async def test_a_reader_that_leaves_ends_nothing_of_the_other() -> None:
    leader, reader = Scripted(output([])), Reader(())
    shared = reader.shared(leader)
    await shared.abandon()
    assert (leader.ended, reader.reports) == (["abandoned"], [(False, True)])


async def test_a_reader_with_an_earlier_deadline_fails_alone() -> None:
    leader, reader = Scripted(), Reader(())
    shared = reader.shared(leader, timeout_s=0.01)
    _, _, (failure,) = await read(shared)
    assert failure.error.reason == "DEADLINE_EXCEEDED"
    assert reader.opened == 0
    outcome = RequestOutcome()
    outcome.error.code = 4
    await shared.settle(outcome)
    assert leader.ended == ["abandoned"]


async def test_what_refuses_its_own_request_is_its_error() -> None:
    full = LaneFull("the lane is full", retry_after_s=1.0)
    reader = Reader((), refusal=full)
    shared = reader.shared(Scripted([[Failed(CANCELLED)]]))
    _, _, failures = await read(shared)
    assert failures == [Failed(full)]
