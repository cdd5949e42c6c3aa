"""headrace dead-letters"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any

import click
from google.protobuf.message import DecodeError
from rich.markup import escape

from headrace.admin.v1 import operations_pb2 as pb
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.bus import StoredDeadLetter
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.list_group import shows_list
from headrace.cli.console.options import (
    MeshTarget,
    json_option,
    mesh_options,
    nats_url_option,
    open_bus,
)
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import RequestRecord

_MOST_OF_API = 1000


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter as `--json` prints it, without prompt and output."""

    number: int
    """By which it is resent."""
    request_id: str
    """As TENANT/ID unless it is of the tenant `default`; empty if the message could not be read."""
    model: str
    time: str
    """RFC 3339, in UTC."""
    attempts: int
    """Failed attempts in a row, up to the last."""
    reason: str


def _list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `headrace dead-letters` and its `list` both take."""

    @nats_url_option
    @click.option("--limit", type=click.IntRange(min=1), default=100, help="Show at most N.")
    @json_option
    @mesh_options
    @wraps(command)
    def with_options(**options: Any) -> Any:
        return command(**options)

    return with_options


@click.group("dead-letters", invoke_without_command=True)
@_list_options
@click.pass_context
def dead_letters(context: click.Context, /, **options: Any) -> None:
    """Show requests that failed on every attempt, newest first, or send one again.

    They are kept for a week.
    """
    if shows_list(context):
        _show(**options)


@dead_letters.command("list")
@_list_options
def list_dead_letters(**options: Any) -> None:
    """Show them, newest first."""
    _show(**options)


@dead_letters.command("resend")
@click.argument("number", type=click.IntRange(min=1))
@mesh_options
def resend(mesh: MeshTarget, number: int) -> None:
    """Send the request of dead letter NUMBER again, as a background request of its tenant.

    It goes on from the output that it had, with all attempts and its whole time again. Its id is
    the old one with -resent-NUMBER after it, so repeating this changes nothing.
    """
    name = asyncio.run(_resend(mesh, number))
    _, tenant, _, request_id = name.split("/")
    click.echo(f"{_key(name)} runs in the background")
    who = "" if tenant == "default" else f" with a key of {tenant}"
    click.echo(f"its result, for a day: GET /v2/requests/{request_id}{who}")


def _show(mesh: MeshTarget, nats_url: str | None, limit: int, as_json: bool) -> None:
    is_of_bus = nats_url is not None or mesh.chosen_url is None
    rows = asyncio.run(_of_bus(mesh, nats_url, limit) if is_of_bus else _of_api(mesh, limit))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = terminal.table("number", "request", "model", "time", "attempts", "reason")
    for row in rows:
        name = row.request_id or "(unreadable)"
        cells = (name, row.model, row.time, str(row.attempts), row.reason)
        table.add_row(str(row.number), *map(escape, cells))
    terminal.console().print(table if rows else "no dead letters")


async def _of_bus(mesh: MeshTarget, nats_url: str | None, limit: int) -> list[DeadLetterRow]:
    async with open_bus(nats_url, mesh.state_dir, command="dead-letters") as bus:
        return [_stored(stored) for stored in await bus.dead_letters(limit=limit)]


async def _of_api(mesh: MeshTarget, limit: int) -> list[DeadLetterRow]:
    request = pb.ListDeadLettersRequest(page_size=min(limit, _MOST_OF_API))
    async with admin_api(mesh) as channel:
        found = await OperationServiceStub(channel).ListDeadLetters(request)
    return [
        DeadLetterRow(
            int(each.name.rpartition("/")[2]),
            _key(each.request),
            each.model,
            each.time.ToJsonString(),
            each.attempts,
            each.reason,
        )
        for each in found.dead_letters
    ]


async def _resend(mesh: MeshTarget, number: int) -> str:
    request = pb.ResendDeadLetterRequest(name=f"deadLetters/{number}")
    async with admin_api(mesh) as channel:
        response = await OperationServiceStub(channel).ResendDeadLetter(request)
    return str(response.request)


def _key(name: str) -> str:
    _, _, rest = name.partition("tenants/")
    tenant, _, request_id = rest.partition("/requests/")
    return request_id if tenant == "default" else f"{tenant}/{request_id}".strip("/")


def _stored(stored: StoredDeadLetter) -> DeadLetterRow:
    letter = DeadLetter.FromString(stored.letter)
    try:
        request_id = RequestRecord.FromString(letter.message).request_id
    except DecodeError:
        request_id = ""
    model, time = letter.model or stored.lane, letter.time.ToJsonString()
    return DeadLetterRow(stored.sequence, request_id, model, time, letter.attempts, letter.reason)
