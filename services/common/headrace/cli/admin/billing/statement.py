"""headrace usage statement, close and correct"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Awaitable, Callable
from typing import IO, Any, TypeVar

import click
from rich.markup import escape

from headrace.admin.v1 import statements_pb2 as pb
from headrace.admin.v1.statements_pb2_grpc import StatementServiceStub
from headrace.billing.money import NANOS, amount_text
from headrace.billing.months import checked_month
from headrace.cli.admin.access.values import day_text, shown_time
from headrace.cli.admin.billing.usage_output import warn_of_unpriced
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

COLUMNS = (
    *("month", "corrects_month", "model", "kind", "batch", "key", "reason", "requests"),
    *("input_tokens", "cached_input_tokens", "output_tokens"),
    *("input_price", "cached_input_price", "output_price", "exact_amount", "amount", "currency"),
    "unpriced",
)
"""Of the CSV. Prices are of a token."""
_SHOWN_PER = 1_000_000
DRAW_S = 300.0
"""Longest that a statement is drawn up: all rows of its month are read."""


class Month(click.ParamType[str]):
    """A month, as 2026-11."""

    name = "month"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return checked_month(value)
        except ValueError as error:
            self.fail(str(error))


def _which(command: F) -> F:
    """Add the options that say which statement; the command gets `name` and `account`."""
    for add in (
        click.option(
            "--account",
            default="",
            show_default=False,
            help="Id of an account, of a deleted tenant whose name another one has now.",
        ),
        click.option("--month", type=Month(), required=True, help="As 2026-11."),
        click.option("--tenant", required=True, help="Whose; a deleted one's too."),
    ):
        command = add(command)
    return command


@click.command()
@_which
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print it as CSV, with a line for the total.")
@mesh_options
def statement(
    mesh: MeshTarget, tenant: str, month: str, account: str, as_json: bool, as_csv: bool
) -> None:
    """Show what a tenant owes for a month: as it was closed, or of an open month as it is now."""
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv")
    request = pb.GetStatementRequest(name=_name(tenant, month), account_id=account)
    found = _call(mesh, lambda stub: stub.GetStatement(request, timeout=DRAW_S))
    if as_csv:
        write_csv(found, sys.stdout)
    else:
        _print(found, as_json=as_json)


@click.command("statements")
@click.option("--tenant", required=True, help="Whose; a deleted one's too.")
@click.option("--account", default="", show_default=False, help="As of `headrace usage statement`.")
@json_option
@mesh_options
def list_statements(mesh: MeshTarget, tenant: str, account: str, as_json: bool) -> None:
    """List the closed statements of a tenant, the newest first."""
    request = pb.ListStatementsRequest(
        parent=f"tenants/{tenant}", account_id=account, page_size=1000
    )
    found = _call(mesh, lambda stub: stub.ListStatements(request)).statements
    if as_json:
        click.echo(json.dumps([_summary(each) for each in found], indent=1))
        return
    table = terminal.table("number", "month", "total", "currency", "as of", "account")
    for each in found:
        as_of = day_text(shown_time(each, "as_of_time"))
        table.add_row(
            str(each.sequence), each.month, each.total, each.currency, as_of, each.account_id
        )
    terminal.console().print(table if found else "no month is closed")


@click.command()
@_which
@click.option("--early", is_flag=True, help="Close it although it goes on, as for a last bill.")
@json_option
@mesh_options
def close(
    mesh: MeshTarget, tenant: str, month: str, account: str, early: bool, as_json: bool
) -> None:
    """Close a month that has ended: its statement stays as it is now.

    Usage of the month that is recorded later is in the next statement, in lines that name the
    month.
    """
    name = _name(tenant, month)
    request = pb.CloseStatementRequest(name=name, account_id=account, early=early)
    closed = _call(mesh, lambda stub: stub.CloseStatement(request, timeout=DRAW_S))
    _print(closed, as_json=as_json)


@click.command()
@_which
@click.option("--amount", required=True, help="To be added, as 12.50, or -12.50 for a credit.")
@click.option("--reason", required=True, help="Shown in the statement.")
@mesh_options
def correct(
    mesh: MeshTarget, tenant: str, month: str, account: str, amount: str, reason: str
) -> None:
    """Correct a month: a line of the next statement that is closed. Closed ones never change."""
    name = _name(tenant, month)
    request = pb.CorrectStatementRequest(
        name=name, account_id=account, amount=amount, reason=reason
    )
    _call(mesh, lambda stub: stub.CorrectStatement(request))
    click.echo(f"the next statement of {tenant} has {amount} for {month}: {reason}")


def write_csv(found: pb.Statement, file: IO[str]) -> None:
    """Write a statement as CSV: a line for each line, and one for the total."""
    rows = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
    rows.writeheader()
    for line in found.lines:
        texts = {"month": found.month, "currency": found.currency}
        rows.writerow({**_line(line), **texts, "unpriced": "yes" if line.unpriced else ""})
    total = {"exact_amount": _nanos_text(found.exact_nanos), "amount": found.total}
    rows.writerow({"month": found.month, "model": "total", "currency": found.currency, **total})


def _name(tenant: str, month: str) -> str:
    return f"tenants/{tenant}/statements/{month}"


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(StatementServiceStub(channel)))


def _summary(found: pb.Statement) -> dict[str, object]:
    return {
        "tenant": found.name.split("/")[1],
        "account": found.account_id,
        "tenant_created": shown_time(found, "tenant_create_time"),
        "tenant_deleted": shown_time(found, "tenant_delete_time"),
        "month": found.month,
        "time_zone": found.time_zone,
        "begins": shown_time(found, "begin_time"),
        "ends": shown_time(found, "end_time"),
        "currency": found.currency,
        "state": "open" if found.open else "closed",
        "as_of": shown_time(found, "as_of_time"),
        "number": found.sequence or None,
        "hash": found.hash or None,
        "exact_amount": _nanos_text(found.exact_nanos),
        "total": found.total,
    }


def _line(line: pb.StatementLine) -> dict[str, object]:
    return {
        "corrects_month": line.corrects_month,
        "model": line.model,
        "kind": line.kind,
        "batch": line.batch,
        "key": line.key,
        "reason": line.reason,
        "requests": line.requests,
        "input_tokens": line.input_tokens,
        "cached_input_tokens": line.cached_input_tokens,
        "output_tokens": line.output_tokens,
        "input_price": _nanos_text(line.input_nanos),
        "cached_input_price": _nanos_text(line.cached_input_nanos),
        "output_price": _nanos_text(line.output_nanos),
        "exact_amount": _nanos_text(line.exact_nanos),
        "amount": line.amount,
        "unpriced": line.unpriced,
    }


def _nanos_text(nanos: int) -> str:
    """Return an amount with all of its nine digits behind the point."""
    whole, part = divmod(abs(nanos), NANOS)
    return f"{'-' if nanos < 0 else ''}{whole}.{part:09d}"


def _prices(line: pb.StatementLine) -> str:
    """Return the prices of a million input, cached and output tokens."""
    nanos = (line.input_nanos, line.cached_input_nanos, line.output_nanos)
    return " ".join(amount_text(each * _SHOWN_PER) for each in nanos) if any(nanos) else "none"


def _print(found: pb.Statement, *, as_json: bool) -> None:
    summary = _summary(found)
    if as_json:
        click.echo(
            json.dumps({**summary, "lines": [_line(each) for each in found.lines]}, indent=1)
        )
        return
    table = terminal.table(
        *("model", "kind", "requests", "input", "cached", "output", "prices of 1M", "amount", "")
    )
    for each in found.lines:
        about = [each.key, "batch" if each.batch else "", each.reason]
        about += ["no price was set"] if each.unpriced else []
        if each.corrects_month:
            about.insert(0, f"of {each.corrects_month}")
        counts = (each.requests, each.input_tokens, each.cached_input_tokens, each.output_tokens)
        is_usage = bool(each.requests)
        table.add_row(
            escape(each.model) or "correction",
            each.kind,
            *(str(count) if is_usage else "" for count in counts),
            _prices(each) if is_usage else "",
            each.amount,
            escape(", ".join(filter(None, about))),
        )
    as_of = day_text(shown_time(found, "as_of_time"))
    state = f"open, as of {as_of}" if found.open else f"closed, number {found.sequence}"
    click.echo(f"{summary['tenant']} {found.month} ({found.time_zone}): {state}")
    terminal.console().print(table if found.lines else "nothing was used")
    click.echo(f"total: {found.total} {found.currency}")
    warn_of_unpriced(sorted({each.model for each in found.lines if each.unpriced}))
