"""One stream assembled from its events, and what is wrong with it in itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from headrace.chaos.history import (
    ChoiceFinished,
    DeltaReceived,
    Event,
    RequestSent,
    StreamEnd,
    StreamEvent,
    StreamFinished,
    StreamResumed,
    StreamStarted,
    UsageReceived,
)


class Violation(StrEnum):
    LOST = "lost"
    """Tokens or an end never came."""
    REPEATED = "repeated"
    """Something came twice, or after the end."""
    ALTERED = "altered"
    """The output differs from the undisturbed run's."""
    FAILED = "failed"
    """An error came where the mesh promises an answer."""
    MISBILLED = "misbilled"
    """The rows of usage are not what the client was told, or received."""


@dataclass(frozen=True, slots=True)
class Finding:
    stream: int
    violation: Violation
    fact: str


@dataclass(slots=True)
class Choice:
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: str | None = None


@dataclass(slots=True)
class Trace:
    sent: RequestSent
    choices: list[Choice]
    started: StreamStarted | None = None
    usage: UsageReceived | None = None
    end: StreamEnd | None = None
    resumes: int = 0
    """How often its client attached again."""
    delta_times_s: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return isinstance(self.end, StreamFinished)

    def report(self, violation: Violation, fact: str) -> None:
        self.findings.append(Finding(self.sent.stream, violation, fact))


def add_event(traces: dict[int, Trace], event: Event) -> None:
    """Add an event to the trace of its stream; events without a stream are ignored."""
    match event:
        case RequestSent():
            traces[event.stream] = Trace(event, [Choice() for _ in range(event.choices)])
        case StreamResumed():
            traces[event.stream].resumes += 1
        case StreamEvent():
            _add(traces[event.stream], event)


def _add(trace: Trace, event: StreamEvent) -> None:
    if trace.end is not None:
        trace.report(Violation.REPEATED, f"{type(event).__name__} after {type(trace.end).__name__}")
        return
    match event:
        case StreamEnd():
            trace.end = event
        case StreamStarted():
            if trace.started is not None:
                trace.report(Violation.REPEATED, "started twice")
            trace.started = event
        case DeltaReceived():
            _add_delta(trace, event)
        case ChoiceFinished(choice=number, reason=reason):
            choice = trace.choices[number]
            if choice.reason is not None:
                trace.report(Violation.REPEATED, f"choice {number} finished twice")
            choice.reason = reason
        case UsageReceived():
            if trace.usage is not None:
                trace.report(Violation.REPEATED, "usage came twice")
            trace.usage = event


def _add_delta(trace: Trace, delta: DeltaReceived) -> None:
    choice = trace.choices[delta.choice]
    if choice.reason is not None:
        trace.report(Violation.REPEATED, f"choice {delta.choice} continued after its finish")
        return
    expected = len(choice.token_ids)
    if delta.first_index is not None and delta.token_ids and delta.first_index != expected:
        trace.report(
            Violation.REPEATED if delta.first_index < expected else Violation.LOST,
            f"choice {delta.choice}: index {delta.first_index} where {expected} was next",
        )
    choice.token_ids += delta.token_ids
    choice.text += delta.text
    trace.delta_times_s.append(delta.at_s)
