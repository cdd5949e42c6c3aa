"""Usage as messages of headrace.admin.v1. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.admin.v1 import usage_pb2 as pb
from headrace.errors import InvalidRequest
from headrace_control.api.tenancy.fields import timestamp
from headrace_control.base.accounts.usage import HOUR_MS, Values, kind_name
from headrace_control.base.published_rows import time_of

GROUPS = {
    "tenant": "tenant",
    "model": "model",
    "key": "key_id",
    "person": "person",
    "batch": "batch",
    "kind": "kind",
}
"""What sums are grouped by, and its column."""
WIDTHS = {"minute": HOUR_MS // 60, "hour": HOUR_MS, "day": 24 * HOUR_MS}
_SAME = (
    *("source", "sequence", "request_id", "tenant", "person", "model", "version", "priority"),
    *("code", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"),
    *("queue_ms", "first_token_ms", "attempts", "batch_id", "batch_line", "cache_hit", "engine"),
    *("upstream_cost_nanos", "upstream_currency", "n", "currency", "input_nanos"),
    *("output_nanos", "cost_nanos", "billed"),
)
"""Columns of a row whose fields have their names."""


def groups_in(by: Sequence[str]) -> tuple[list[str], int]:
    """Return the columns that sums are grouped by, and the milliseconds of their times.

    Raises:
        InvalidRequest: there is no such group, or two of time.
    """
    columns, every_ms = [], 0
    for name in dict.fromkeys(by):
        if name in GROUPS:
            columns.append(GROUPS[name])
        elif name in WIDTHS and not every_ms:
            every_ms = WIDTHS[name]
        else:
            raise InvalidRequest(
                f"by has {name[:40]!a}; it may have {', '.join(GROUPS)}, and one of"
                f" {', '.join(WIDTHS)}",
                field="by",
            )
    return columns, every_ms


def sum_message(sums: Mapping[str, Any], *, has_time: bool) -> pb.UsageSum:
    message = pb.UsageSum(
        tenant=sums.get("tenant", ""),
        model=sums.get("model", ""),
        key=sums.get("key_id", ""),
        person=sums.get("person", ""),
        batch=sums.get("batch", False),
        kind=kind_name(sums["kind"]) if "kind" in sums else "",
        requests=sums["requests"],
        input_tokens=sums["input_tokens"],
        cached_input_tokens=sums["cached_input_tokens"],
        output_tokens=sums["output_tokens"],
        reasoning_tokens=sums["reasoning_tokens"],
        cost_nanos=sums["cost_nanos"],
        currency=sums["currency"],
    )
    if has_time and (begin := timestamp(time_of(sums["begin_ms"]))) is not None:
        message.begin_time.CopyFrom(begin)
    return message


def row_message(row: Values) -> pb.UsageRow:
    return pb.UsageRow(
        key=row["key_id"],
        kind=kind_name(row["kind"]),
        arrival_time=timestamp(time_of(row["arrival_ms"])),
        end_time=timestamp(time_of(row["end_ms"])),
        background=row["detached"],
        cached_input_nanos=row["cached_nanos"],
        **{name: row[name] for name in _SAME},
    )
