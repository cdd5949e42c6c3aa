"""headrace audit"""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import click
from rich.markup import escape

from headrace.admin.v1 import audit_pb2 as pb
from headrace.admin.v1.audit_pb2_grpc import AuditServiceStub
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.supervisor.state.failures import MeshError

FIRST_HASH = 64 * "0"


@click.group()
def audit() -> None:
    """See who administered what, and check that the record of it is whole."""


@audit.command("list")
@click.option("--tenant", help="Only what concerns this tenant.")
@click.option("--action", default="", show_default=False, help="Only these, as keys.create.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Show at most N.")
@mesh_options
@json_option
def list_events(
    mesh: MeshTarget, tenant: str | None, action: str, limit: int, as_json: bool
) -> None:
    """Show what was administered, newest first."""
    parent = "" if tenant is None else f"tenants/{tenant}"
    request = pb.ListAuditEventsRequest(parent=parent, action=action, page_size=limit)
    events = asyncio.run(_list(mesh, request))
    if as_json:
        click.echo(json.dumps([_as_dict(event) for event in events], indent=1))
        return
    table = terminal.table("number", "time", "action", "resource", "by", "from", "details")
    for event in events:
        cells = (event.action, event.resource, event.actor, event.client or "-", event.details)
        time = event.time.ToJsonString()
        table.add_row(str(event.sequence), time, *map(escape, cells))
    terminal.console().print(table if events else "no events")


@audit.command("export")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events after number N.")
@mesh_options
def export(mesh: MeshTarget, after: int) -> None:
    """Print every event as a line of JSON, oldest first, with the hashes that chain them."""
    asyncio.run(_export(mesh, after, sys.stdout.buffer))


@audit.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option(
    "--after-hash",
    default="",
    show_default=False,
    help="Hash of the event before the first one of FILE.",
)
def verify(file: Path, after_hash: str) -> None:
    """Check the hashes of an exported FILE (- is standard input): that nothing was changed, removed
    or put in between.

    The hash that it prints is of the whole list; whoever keeps it elsewhere can prove later that
    the list still begins so.
    """
    with click.open_file(str(file), encoding="utf-8") as lines:
        count, last_hash = check_chain(lines, after_hash)
    click.echo(f"{count} events are whole; the last hash is {last_hash}")


def check_chain(lines: IO[str], after_hash: str = "") -> tuple[int, str]:
    """Return how many events there are, and the hash of the last.

    Each hash is SHA-256 of the one before, in hexadecimal, and the event's JSON without its two
    hashes, with sorted keys and without spaces.

    Raises:
        MeshError: the first line that does not follow from the one before.
    """
    count, sequence, last_hash = 0, 0, after_hash
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            previous, found = event.pop("previous_hash"), event.pop("hash")
            at = int(event["sequence"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MeshError(f"line {number} is no audit event") from None
        if not last_hash:
            last_hash = FIRST_HASH if at == 1 else previous
        if count and at != sequence + 1:
            raise MeshError(f"line {number}: event {at} follows event {sequence}; some are missing")
        text = json.dumps(event, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        expected = sha256((last_hash + text).encode()).hexdigest()
        if previous != last_hash or found != expected:
            raise MeshError(f"line {number}: event {at}, or one before it, was changed")
        count, sequence, last_hash = count + 1, at, found
    return count, last_hash or FIRST_HASH


async def _list(mesh: MeshTarget, request: pb.ListAuditEventsRequest) -> list[pb.AuditEvent]:
    async with admin_api(mesh) as channel:
        return list((await AuditServiceStub(channel).ListAuditEvents(request)).audit_events)


async def _export(mesh: MeshTarget, after: int, output: IO[bytes]) -> None:
    request = pb.ExportAuditEventsRequest(after_sequence=after)
    async with admin_api(mesh) as channel:
        async for body in AuditServiceStub(channel).ExportAuditEvents(request):
            output.write(body.data)
    output.flush()


def _as_dict(event: pb.AuditEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "time": event.time.ToJsonString(),
        "action": event.action,
        "resource": event.resource,
        "tenant": event.tenant,
        "actor": event.actor,
        "client": event.client,
        "details": json.loads(event.details or "{}"),
    }
