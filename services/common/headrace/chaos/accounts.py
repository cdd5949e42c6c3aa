"""Compares what clients were told with what their tenants are billed. Pure.

Where a client saw the end of its stream, its one row has exactly the usage that it was told. Else
the row has no less than the client received, and no more than the undisturbed run of the request
made: what workers made is billed, once. Of a row of a batch there may be several rows of usage, of
which one is billed. A stream that broke off, and a row that is too small:

    stream 9: 7 tokens received, its client closed it     the undisturbed run made 40
    row of its request: 5 output tokens                   MISBILLED "5 output tokens of 7"
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from headrace.chaos.history import UsageRowRead
from headrace.chaos.traces import Trace, Violation

_ALREADY_EXISTS = 6
"""Of a row without tokens: a second request of an id, which was refused."""
_BY_GATEWAY = (0, 1)
"""OK and CANCELLED: codes of requests whose output a gateway has counted, up to stop strings. A
leader that gives a request up knows no stop strings."""


def judge_accounts(
    traces: Mapping[int, Trace],
    references: Mapping[int, Trace],
    rows: Iterable[UsageRowRead],
    *,
    exact: bool,
) -> None:
    """Report to each trace what is wrong with its rows.

    Args:
        references: the undisturbed run of each request.
        exact: each run makes the same output.
    """
    by_request: dict[str, list[UsageRowRead]] = defaultdict(list)
    for row in rows:
        if row.billed and row.code != _ALREADY_EXISTS:
            by_request[row.request_id].append(row)
    for trace in traces.values():
        if trace.started is not None and trace.started.request_id:
            found = by_request[trace.started.request_id]
            reference = references.get(trace.sent.request) if exact else None
            _judge(trace, reference, found)


def _judge(trace: Trace, reference: Trace | None, rows: list[UsageRowRead]) -> None:
    if len(rows) != 1:
        trace.report(Violation.MISBILLED, f"it has {len(rows)} billed rows of usage")
        return
    (row,) = rows
    billed = row.input_tokens, row.output_tokens
    if trace.is_good and trace.usage is not None:
        told = trace.usage.prompt_tokens, trace.usage.output_tokens
        if (row.code, billed) != (0, told):
            fact = f"billed {billed} with code {row.code}, and told {told}"
            trace.report(Violation.MISBILLED, fact)
        return
    received = sum(len(choice.token_ids) for choice in trace.choices)
    if row.output_tokens < received:
        fact = f"{row.output_tokens} output tokens billed of {received} that were received"
        trace.report(Violation.MISBILLED, fact)
    made = _most(trace, reference, row)
    if row.output_tokens > made:
        fact = f"{row.output_tokens} output tokens billed, and {made} can be made"
        trace.report(Violation.MISBILLED, fact)


def _most(trace: Trace, reference: Trace | None, row: UsageRowRead) -> int:
    """Return how many output tokens the row may have: as many as the undisturbed run, and where a
    leader counted, what workers may have made behind a stop string."""
    if reference is None or reference.usage is None:
        return trace.sent.choices * trace.sent.max_tokens
    stops = any(choice.reason == "stop" for choice in reference.choices)
    if stops and row.code not in _BY_GATEWAY:
        return trace.sent.choices * trace.sent.max_tokens
    return reference.usage.output_tokens
