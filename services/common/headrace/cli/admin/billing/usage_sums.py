"""Sums of usage: what `headrace usage` shows without a command."""

from __future__ import annotations

from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import usage_pb2 as pb
from headrace.admin.v1.usage_pb2_grpc import UsageServiceStub
from headrace.billing.money import amount_text
from headrace.cli.admin.access.values import shown_time
from headrace.cli.admin.billing.usage_output import Printer, warn_of_unpriced
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget

GROUPS = ("tenant", "model", "key", "person", "batch", "kind", "minute", "hour", "day")
TIMES = ("minute", "hour", "day")
_TOTALS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost", "currency")


def show_sums(
    mesh: MeshTarget,
    *,
    tenant: str,
    by: tuple[str, ...],
    since: Timestamp | None,
    until: Timestamp | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print sums: one for each currency, or for each group of `by` in it."""
    printer = Printer((*by, *_TOTALS), as_json=as_json, as_csv=as_csv)
    request = pb.GetUsageRequest(parent=f"tenants/{tenant}", by=by, since=since, until=until)
    found: pb.GetUsageResponse = call_admin_api(
        mesh, lambda channel: UsageServiceStub(channel).GetUsage(request)
    )
    printer.add(_as_dict(each, by) for each in found.sums)
    printer.finish(nothing="no request has ended in this time")
    warn_of_unpriced(found.unpriced_models)


def _as_dict(sums: pb.UsageSum, by: tuple[str, ...]) -> dict[str, Any]:
    groups = {
        name: shown_time(sums, "begin_time") if name in TIMES else getattr(sums, name)
        for name in by
    }
    totals = {name: getattr(sums, name) for name in _TOTALS if name != "cost"}
    return {**groups, **totals, "cost": amount_text(sums.cost_nanos)}


def checked_groups(by: tuple[str, ...]) -> tuple[str, ...]:
    """Return the groups, each once.

    Raises:
        UsageError: two of them are times.
    """
    if sum(name in TIMES for name in set(by)) > 1:
        raise click.UsageError(f"--by may have one of {', '.join(TIMES)}")
    return tuple(dict.fromkeys(by))
