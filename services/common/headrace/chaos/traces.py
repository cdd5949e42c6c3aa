"""One stream put together from its events, and what is wrong with it in itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from headrace.chaos.history import (
    Accepted,
    ChoiceEnded,
    Counted,
    Cut,
    Ended,
    Event,
    Failed,
    Left,
    Offered,
    Refused,
    Returned,
    Said,
)


class Wrong(StrEnum):
    LOST = "lost"
    """Tokens or an end that never came."""
    REPEATED = "repeated"
    """Something said twice, or after the end."""
    ALTERED = "altered"
    """Not what the undisturbed run said."""
    FAILED = "failed"
    """An error where the mesh promises an answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    stream: int
    wrong: Wrong
    fact: str


@dataclass(slots=True)
class Choice:
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: str | None = None


@dataclass(slots=True)
class Trace:
    offered: Offered
    choices: list[Choice]
    accepted: Accepted | None = None
    counted: Counted | None = None
    end: Ended | Refused | Failed | Left | Cut | None = None
    returns: int = 0
    """How often its client came back for the rest."""
    said_s: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def stream(self) -> int:
        return self.offered.stream

    @property
    def is_good(self) -> bool:
        return isinstance(self.end, Ended)

    def find(self, wrong: Wrong, fact: str) -> None:
        self.findings.append(Finding(self.stream, wrong, fact))


def take(found: dict[int, Trace], event: Event) -> None:
    """Add an event to the trace of its stream; events of no stream are passed over."""
    match event:
        case Offered():
            found[event.stream] = Trace(event, [Choice() for _ in range(event.choices)])
        case Accepted() | Said() | ChoiceEnded() | Counted():
            _take(found[event.stream], event)
        case Returned():
            found[event.stream].returns += 1
        case Ended() | Refused() | Failed() | Left() | Cut():
            _end(found[event.stream], event)


def _take(trace: Trace, event: Accepted | Said | ChoiceEnded | Counted) -> None:
    if trace.end is not None:
        trace.find(Wrong.REPEATED, f"{type(event).__name__} after {type(trace.end).__name__}")
        return
    match event:
        case Accepted():
            if trace.accepted is not None:
                trace.find(Wrong.REPEATED, "accepted twice")
            trace.accepted = event
        case Said():
            _say(trace, event)
        case ChoiceEnded(choice=number, reason=reason):
            choice = trace.choices[number]
            if choice.reason is not None:
                trace.find(Wrong.REPEATED, f"choice {number} ended twice")
            choice.reason = reason
        case Counted():
            if trace.counted is not None:
                trace.find(Wrong.REPEATED, "usage told twice")
            trace.counted = event


def _say(trace: Trace, said: Said) -> None:
    choice = trace.choices[said.choice]
    if choice.reason is not None:
        trace.find(Wrong.REPEATED, f"choice {said.choice} went on after its end")
        return
    expected = len(choice.token_ids)
    if said.first_index is not None and said.token_ids and said.first_index != expected:
        wrong = Wrong.REPEATED if said.first_index < expected else Wrong.LOST
        fact = f"choice {said.choice}: index {said.first_index} where {expected} was next"
        trace.find(wrong, fact)
    choice.token_ids += said.token_ids
    choice.text += said.text
    trace.said_s.append(said.at_s)


def _end(trace: Trace, event: Ended | Refused | Failed | Left | Cut) -> None:
    if trace.end is not None:
        trace.find(
            Wrong.REPEATED, f"{type(event).__name__} after {type(trace.end).__name__}: two ends"
        )
        return
    trace.end = event
