"""An observer of the scheduler's state machine that counts, and checks every transition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.events import Command, Event
from headrace_scheduler.state.observer import Happening
from headrace_scheduler.state.transitions import TIME, TRANSITIONS

SEEN_TRANSITIONS: set[tuple[str, str, str]] = set()
"""State, event and next state of every move in this process whose event was known."""


class CountingObserver:
    """Counts what happened, by name and cause."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.event = ""
        """Name of the event that is being applied; empty where the test does not set it."""

    def moved(self, request: Request, before: str, after: str) -> None:
        self.counts[f"{before} to {after}"] += 1
        if self.event:
            transition = before, self.event, after
            assert transition in TRANSITIONS, f"{transition} is not in the table of transitions"
            SEEN_TRANSITIONS.add(transition)

    def happened(self, what: Happening, request: Request, cause: str) -> None:
        self.counts[what] += 1
        self.counts[f"{what}: {cause}"] += 1

    def dispatched(self, worker_id: str, batch: Sequence[Request], now_s: float) -> None:
        self.counts["dispatched"] += len(batch)

    def prefix_held(self, request: Request, tokens: int) -> None:
        self.counts["prefix held"] += 1
        self.counts["prefix tokens"] += tokens

    def settled(self, request: Request, code: int) -> None:
        self.counts["settled"] += 1

    def worker_lost(self, worker_id: str, requests: int) -> None:
        self.counts["worker lost"] += 1

    def ignored(self, what: str) -> None:
        self.counts[f"ignored: {what}"] += 1


def apply_and_decide(
    machine: Machine, observer: CountingObserver, events: Iterable[Event], *, now_s: float
) -> list[Command]:
    """Apply all events, decide once; the observer checks each move against the table."""
    for event in events:
        observer.event = type(event).__name__
        machine.apply(event, now_s=now_s)
    observer.event = TIME
    return machine.decide(now_s=now_s)
