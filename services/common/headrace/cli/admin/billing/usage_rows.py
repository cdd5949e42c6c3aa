"""headrace usage rows and reconcile"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import usage_pb2 as pb
from headrace.admin.v1.usage_pb2_grpc import UsageServiceStub
from headrace.billing.money import amount_text
from headrace.cli.admin.access.values import pages, shown_time
from headrace.cli.admin.billing.usage_output import Printer, format_options, range_options
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api, call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.priorities import priority_name
from headrace.supervisor.state.failures import MeshError

_TABLE = (
    *("end_time", "tenant", "request_id", "model", "key", "code", "input_tokens"),
    *("cached_input_tokens", "output_tokens", "cost", "currency"),
)
COLUMNS = tuple(
    {"cost_nanos": "cost"}.get(field.name, field.name) for field in pb.UsageRow.DESCRIPTOR.fields
)
"""Of CSV and JSON."""
_COMPARE_S = 600.0


@click.command()
@click.option("--tenant", default="-", help="Whose. Default: all that the key sees.")
@range_options
@format_options
@mesh_options
def rows(
    mesh: MeshTarget,
    tenant: str,
    since: Timestamp | None,
    until: Timestamp | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show a row for each request that has ended, the oldest first."""
    columns = COLUMNS if as_json or as_csv else _TABLE
    printer = Printer(columns, as_json=as_json, as_csv=as_csv)
    request = pb.ListUsageRowsRequest(parent=f"tenants/{tenant}", since=since, until=until)
    asyncio.run(_print_rows(mesh, request, printer))
    printer.finish(nothing="no request has ended in this time")


async def _print_rows(mesh: MeshTarget, request: pb.ListUsageRowsRequest, printer: Printer) -> None:
    async with admin_api(mesh) as channel:
        stub: Any = UsageServiceStub(channel)

        async def page(size: int, token: str) -> pb.ListUsageRowsResponse:
            request.page_size, request.page_token = size, token
            answer: pb.ListUsageRowsResponse = await stub.ListUsageRows(request)
            return answer

        async for found in pages(page):
            printer.add(map(_as_dict, found.rows))


def _as_dict(row: pb.UsageRow) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in COLUMNS if name != "cost"}
    return shown | {
        "cost": amount_text(row.cost_nanos),
        "priority": priority_name(row.priority) if row.priority else None,
        "arrival_time": shown_time(row, "arrival_time"),
        "end_time": shown_time(row, "end_time"),
    }


@click.command()
@range_options
@click.option(
    "--repair", is_flag=True, help="Store records without a row, and make sums what rows say."
)
@json_option
@mesh_options
def reconcile(
    mesh: MeshTarget,
    since: Timestamp | None,
    until: Timestamp | None,
    repair: bool,
    as_json: bool,
) -> None:
    """Compare rows with their sums and with the broker's records, and name every difference.

    Exit status 1: there are some that are not repaired.
    """
    request = pb.ReconcileUsageRequest(since=since, until=until, repair=repair)
    found: pb.ReconcileUsageResponse = call_admin_api(
        mesh,
        lambda channel: UsageServiceStub(channel).ReconcileUsage(request, timeout=_COMPARE_S),
    )
    differences = [
        {"kind": d.kind, "tenant": d.tenant, "detail": d.detail, "repaired": d.repaired}
        for d in found.differences
    ]
    if as_json:
        facts = {"rows": found.rows, "records": found.records, "differences": differences}
        click.echo(json.dumps(facts, indent=1))
    else:
        _print_differences(found)
    if left := sum(not each["repaired"] for each in differences):
        raise MeshError(f"{left} differences are not repaired")


def _print_differences(found: pb.ReconcileUsageResponse) -> None:
    click.echo(f"{found.rows} rows and their sums, {found.records} records of the broker")
    if not found.differences:
        click.echo("there is no difference")
        return
    table = terminal.table("kind", "tenant", "repaired", "difference")
    for each in found.differences:
        table.add_row(each.kind, each.tenant or "-", "yes" if each.repaired else "no", each.detail)
    terminal.console().print(table)
