"""Checks an event log against what the mesh promises. Pure.

Each request has exactly one end, and nothing follows it. The token indices of a choice are 0, 1,
2 … without gap or repeat. Tokens, text, finish reason and usage equal those of the undisturbed run
of the same request. No stream ends without a finish or an error. A token that came twice:

    undisturbed stream 1 of request 0:   index 0: token ids 11 12 13 14; "length", 4 output tokens
    disturbed stream 9 of request 0:     index 0: token ids 11 12
    FaultInjected worker-valley-0
                                         index 1: token ids 12 13 14; "length", 4 output tokens
    findings: stream 9 REPEATED "choice 0: index 1 where 2 was next"
              stream 9 ALTERED  "usage reports 4 output tokens of 5"
              stream 9 ALTERED  "token ids of choice 0: differs at 2 of 4: [12, …], not [13, …]"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.chaos.accounts import judge_accounts
from headrace.chaos.history import (
    UNREACHABLE,
    AccountsRead,
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
    UsageRowRead,
)
from headrace.chaos.requests import Api
from headrace.chaos.traces import Finding, Trace, Violation, add_event

CAPACITY = frozenset(
    {"lane_full", "patience_exhausted", "no_worker", "broker_unavailable", "gateway_draining"}
)
"""Rejections that a mesh with a part missing may give: nothing has started, retry later. Rows of
batches get none of them: they wait."""
GATEWAY_LOSS_S = 5.0
"""A request that got no answer within this time after a gateway was killed was at that gateway."""


@dataclass(frozen=True, slots=True)
class Judgement:
    run: RunStarted
    traces: dict[int, Trace]
    faults: list[FaultInjected]
    recovered_s: dict[int, float]
    """When each fault's target was ready again; targets that never were are missing."""
    held: int | None
    """Requests left in the mesh at the end; None: unknown."""
    findings: list[Finding]
    rows: int | None = None
    """Rows of usage; None: they were not read."""
    differences: tuple[str, ...] = ()
    """What the mesh itself finds wrong with them."""


def judge(history: Iterable[Event]) -> Judgement:
    """Check a whole history.

    Raises:
        ValueError: the history has no RunStarted.
    """
    events = list(history)
    run = next((event for event in events if isinstance(event, RunStarted)), None)
    if run is None:
        raise ValueError("the history has no RunStarted")
    traces: dict[int, Trace] = {}
    for event in events:
        add_event(traces, event)
    faults = [event for event in events if isinstance(event, FaultInjected)]
    references = {t.sent.request: t for t in traces.values() if not t.sent.disturbed}
    gateway_losses_s = [fault.at_s for fault in faults if fault.kind == "gateway"]
    rows = [event for event in events if isinstance(event, UsageRowRead)]
    accounts = next((event for event in events if isinstance(event, AccountsRead)), None)
    if accounts is not None:
        judge_accounts(traces, references, rows, exact=run.exact)
    for trace in traces.values():
        _judge_end(trace, gateway_losses_s)
        _judge_content(trace, references.get(trace.sent.request), exact=run.exact)
    return Judgement(
        run,
        traces,
        faults,
        {event.fault: event.at_s for event in events if isinstance(event, FaultRecovered)},
        next((event.held for event in events if isinstance(event, RunEnded)), None),
        [finding for trace in traces.values() for finding in trace.findings],
        rows=None if accounts is None else len(rows),
        differences=() if accounts is None else tuple(accounts.differences),
    )


def _judge_end(trace: Trace, gateway_losses_s: list[float]) -> None:
    allowed: frozenset[str] = frozenset() if trace.sent.api == Api.BATCH else CAPACITY
    match trace.end:
        case None:
            trace.report(Violation.LOST, "it has no end")
        case StreamBroken(reason=reason):
            trace.report(Violation.LOST, f"broken: {reason}")
        case RequestRejected(at_s=at_s, code=code, message=message) if code == UNREACHABLE:
            if not _by_gateway_loss(trace, at_s, gateway_losses_s):
                trace.report(Violation.FAILED, f"unreachable: {message}")
        case RequestRejected(code=code, message=message) if code not in allowed:
            trace.report(Violation.FAILED, f"rejected with {code}: {message}")
        case StreamFailed(code=code, message=message) if code not in allowed or trace.delta_times_s:
            trace.report(Violation.FAILED, f"failed with {code}: {message}")
        case StreamFinished():
            _judge_finish(trace)


def _by_gateway_loss(trace: Trace, at_s: float, losses_s: list[float]) -> bool:
    return any(
        loss_s <= at_s <= loss_s + GATEWAY_LOSS_S and trace.sent.at_s <= loss_s + GATEWAY_LOSS_S
        for loss_s in losses_s
    )


def _judge_finish(trace: Trace) -> None:
    for number, choice in enumerate(trace.choices):
        if choice.reason is None:
            trace.report(Violation.LOST, f"choice {number} has no finish reason")
    if trace.started is None:
        trace.report(Violation.LOST, "it finished without having started")
    if trace.usage is None:
        trace.report(Violation.LOST, "it has no usage")
        return
    received = sum(len(choice.token_ids) for choice in trace.choices)
    if received and received != trace.usage.output_tokens:
        fact = f"usage reports {trace.usage.output_tokens} output tokens of {received}"
        trace.report(Violation.ALTERED, fact)


def _judge_content(trace: Trace, reference: Trace | None, *, exact: bool) -> None:
    """Compare with the undisturbed run; an incomplete stream must be a prefix of it."""
    if not trace.sent.disturbed or not (trace.delta_times_s or trace.is_good):
        return
    if reference is None or not reference.is_good:
        trace.report(Violation.FAILED, f"request {trace.sent.request} has no undisturbed run")
        return
    if not exact:
        return
    for number, (is_, was) in enumerate(zip(trace.choices, reference.choices, strict=True)):
        whole = trace.is_good or is_.reason is not None
        _compare(trace, f"token ids of choice {number}", is_.token_ids, was.token_ids, whole=whole)
        _compare(trace, f"text of choice {number}", is_.text, was.text, whole=whole)
        if is_.reason is not None and is_.reason != was.reason:
            fact = f"choice {number} finished with {is_.reason}, undisturbed with {was.reason}"
            trace.report(Violation.ALTERED, fact)
    if trace.is_good and (usage := _usage(trace.usage)) != (before := _usage(reference.usage)):
        trace.report(Violation.ALTERED, f"usage {usage}, undisturbed {before}")


def _compare(
    trace: Trace, what: str, is_: str | list[int], was: str | list[int], *, whole: bool
) -> None:
    if is_ == was or (not whole and is_ == was[: len(is_)]):
        return
    pairs = enumerate(zip(is_, was, strict=False))
    at = next((i for i, (mine, its) in pairs if mine != its), min(len(is_), len(was)))
    fact = f"{what}: differs at {at} of {len(was)}: {is_[at : at + 8]!r}, not {was[at : at + 8]!r}"
    trace.report(Violation.ALTERED, fact)


def _usage(usage: UsageReceived | None) -> tuple[int, int] | None:
    return None if usage is None else (usage.prompt_tokens, usage.output_tokens)
