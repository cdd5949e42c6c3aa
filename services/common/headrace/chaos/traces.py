"""One stream put together from its events, and what is wrong with it in itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from headrace.chaos.history import (
    ChoiceFinished,
    ClientClosed,
    DeltaReceived,
    Event,
    RequestRejected,
    RequestSent,
    StreamBroken,
    StreamFailed,
    StreamFinished,
    StreamResumed,
    StreamStarted,
    UsageReceived,
)


class Violation(StrEnum):
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
    wrong: Violation
    fact: str


@dataclass(slots=True)
class Choice:
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: str | None = None


@dataclass(slots=True)
class Trace:
    offered: RequestSent
    choices: list[Choice]
    accepted: StreamStarted | None = None
    counted: UsageReceived | None = None
    end: StreamFinished | RequestRejected | StreamFailed | ClientClosed | StreamBroken | None = None
    returns: int = 0
    """How often its client came back for the rest."""
    said_s: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def stream(self) -> int:
        return self.offered.stream

    @property
    def is_good(self) -> bool:
        return isinstance(self.end, StreamFinished)

    def find(self, wrong: Violation, fact: str) -> None:
        self.findings.append(Finding(self.stream, wrong, fact))


def take(found: dict[int, Trace], event: Event) -> None:
    """Add an event to the trace of its stream; events of no stream are passed over."""
    match event:
        case RequestSent():
            found[event.stream] = Trace(event, [Choice() for _ in range(event.choices)])
        case StreamStarted() | DeltaReceived() | ChoiceFinished() | UsageReceived():
            _take(found[event.stream], event)
        case StreamResumed():
            found[event.stream].returns += 1
        case (
            StreamFinished() | RequestRejected() | StreamFailed() | ClientClosed() | StreamBroken()
        ):
            _end(found[event.stream], event)


def _take(
    trace: Trace, event: StreamStarted | DeltaReceived | ChoiceFinished | UsageReceived
) -> None:
    if trace.end is not None:
        trace.find(Violation.REPEATED, f"{type(event).__name__} after {type(trace.end).__name__}")
        return
    match event:
        case StreamStarted():
            if trace.accepted is not None:
                trace.find(Violation.REPEATED, "accepted twice")
            trace.accepted = event
        case DeltaReceived():
            _say(trace, event)
        case ChoiceFinished(choice=number, reason=reason):
            choice = trace.choices[number]
            if choice.reason is not None:
                trace.find(Violation.REPEATED, f"choice {number} ended twice")
            choice.reason = reason
        case UsageReceived():
            if trace.counted is not None:
                trace.find(Violation.REPEATED, "usage told twice")
            trace.counted = event


def _say(trace: Trace, said: DeltaReceived) -> None:
    choice = trace.choices[said.choice]
    if choice.reason is not None:
        trace.find(Violation.REPEATED, f"choice {said.choice} went on after its end")
        return
    expected = len(choice.token_ids)
    if said.first_index is not None and said.token_ids and said.first_index != expected:
        wrong = Violation.REPEATED if said.first_index < expected else Violation.LOST
        fact = f"choice {said.choice}: index {said.first_index} where {expected} was next"
        trace.find(wrong, fact)
    choice.token_ids += said.token_ids
    choice.text += said.text
    trace.said_s.append(said.at_s)


def _end(
    trace: Trace,
    event: StreamFinished | RequestRejected | StreamFailed | ClientClosed | StreamBroken,
) -> None:
    if trace.end is not None:
        trace.find(
            Violation.REPEATED, f"{type(event).__name__} after {type(trace.end).__name__}: two ends"
        )
        return
    trace.end = event
