"""Holds a history against what the mesh promises. Pure.

Every request has exactly one end and nothing follows it; indices are 0, 1, 2 …
without gap or repeat; tokens, text, finish and usage are those of the undisturbed
run of the same request; nobody's stream just ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.chaos.history import (
    UNREACHABLE,
    Event,
    FaultInjected,
    FaultRecovered,
    RequestRejected,
    RunEnded,
    RunStarted,
    StreamBroken,
    StreamFailed,
    StreamFinished,
    UsageReceived,
)
from headrace.chaos.traces import Finding, Trace, Violation, take

CAPACITY = frozenset(
    {"lane_full", "patience_exhausted", "no_worker", "broker_unavailable", "gateway_draining"}
)
"""Refusals that a mesh with a part missing may give: nothing was begun, come back later."""
GATEWAY_LOSS_S = 5.0
"""A request that nobody answered this long after a gateway was killed was that gateway's."""


@dataclass(frozen=True, slots=True)
class Judgement:
    began: RunStarted
    traces: dict[int, Trace]
    strikes: list[FaultInjected]
    mended_s: dict[int, float]
    """When each fault's target was well again; faults whose never was are missing."""
    held: int | None
    """Requests left in the mesh at the end; None if nobody could say."""
    findings: list[Finding]


def judge(history: Iterable[Event]) -> Judgement:
    """Raises ValueError if the history has no beginning."""
    found: dict[int, Trace] = {}
    others: list[Event] = []
    for event in history:
        take(found, event)
        if isinstance(event, RunStarted | FaultInjected | FaultRecovered | RunEnded):
            others.append(event)
    began = next((event for event in others if isinstance(event, RunStarted)), None)
    if began is None:
        raise ValueError("a history without a beginning")
    strikes = [event for event in others if isinstance(event, FaultInjected)]
    references = {t.offered.ask: t for t in found.values() if not t.offered.disturbed}
    gateway_losses_s = [strike.at_s for strike in strikes if strike.kind == "gateway"]
    for trace in found.values():
        _judge_end(trace, gateway_losses_s)
        _judge_content(trace, references.get(trace.offered.ask), exact=began.exact)
    return Judgement(
        began,
        found,
        strikes,
        {event.fault: event.at_s for event in others if isinstance(event, FaultRecovered)},
        next((event.held for event in others if isinstance(event, RunEnded)), None),
        [finding for trace in found.values() for finding in trace.findings],
    )


def _judge_end(trace: Trace, gateway_losses_s: list[float]) -> None:
    match trace.end:
        case None:
            trace.find(Violation.LOST, "it has no end")
        case StreamBroken(how=how):
            trace.find(Violation.LOST, f"cut: {how}")
        case RequestRejected(at_s=at_s, code=code, message=message) if code == UNREACHABLE:
            if not _by_gateway_loss(trace, at_s, gateway_losses_s):
                trace.find(Violation.FAILED, f"unreachable: {message}")
        case RequestRejected(code=code, message=message) if code not in CAPACITY:
            trace.find(Violation.FAILED, f"refused with {code}: {message}")
        case StreamFailed(code=code, message=message) if code not in CAPACITY or trace.said_s:
            trace.find(Violation.FAILED, f"failed with {code}: {message}")
        case StreamFinished():
            _judge_good_end(trace)


def _by_gateway_loss(trace: Trace, at_s: float, losses_s: list[float]) -> bool:
    return any(
        loss_s <= at_s <= loss_s + GATEWAY_LOSS_S and trace.offered.at_s <= loss_s + GATEWAY_LOSS_S
        for loss_s in losses_s
    )


def _judge_good_end(trace: Trace) -> None:
    for number, choice in enumerate(trace.choices):
        if choice.reason is None:
            trace.find(Violation.LOST, f"choice {number} has no end")
    if trace.accepted is None:
        trace.find(Violation.LOST, "it ended without having begun")
    if trace.counted is None:
        trace.find(Violation.LOST, "its usage was not told")
        return
    made = sum(len(choice.token_ids) for choice in trace.choices)
    if made and made != trace.counted.output_tokens:
        told = trace.counted.output_tokens
        trace.find(Violation.ALTERED, f"usage tells {told} output tokens of {made}")


def _judge_content(trace: Trace, reference: Trace | None, *, exact: bool) -> None:
    """Of a stream that was broken off, what there is must be a beginning of the reference."""
    if not trace.offered.disturbed or not (trace.said_s or trace.is_good):
        return
    if reference is None or not reference.is_good:
        trace.find(Violation.FAILED, f"request {trace.offered.ask} has no undisturbed run")
        return
    if not exact:
        return
    for number, (is_, was) in enumerate(zip(trace.choices, reference.choices, strict=True)):
        whole = trace.is_good or is_.reason is not None
        _compare(trace, f"token ids of choice {number}", is_.token_ids, was.token_ids, whole=whole)
        _compare(trace, f"text of choice {number}", is_.text, was.text, whole=whole)
        if is_.reason is not None and is_.reason != was.reason:
            trace.find(
                Violation.ALTERED, f"choice {number} ended with {is_.reason}, and with {was.reason}"
            )
    if trace.is_good and _usage(trace.counted) != _usage(reference.counted):
        trace.find(
            Violation.ALTERED,
            f"usage {_usage(trace.counted)}, and {_usage(reference.counted)} before",
        )


def _compare(
    trace: Trace, what: str, is_: str | list[int], was: str | list[int], *, whole: bool
) -> None:
    if is_ == was or (not whole and is_ == was[: len(is_)]):
        return
    pairs = enumerate(zip(is_, was, strict=False))
    at = next((i for i, (mine, its) in pairs if mine != its), min(len(is_), len(was)))
    fact = f"{what}: differs at {at} of {len(was)}: {is_[at : at + 8]!r}, not {was[at : at + 8]!r}"
    trace.find(Violation.ALTERED, fact)


def _usage(counted: UsageReceived | None) -> tuple[int, int] | None:
    return None if counted is None else (counted.prompt_tokens, counted.output_tokens)
