"""headrace dead-letters"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass

import click
from google.protobuf.message import DecodeError
from rich.markup import escape

from headrace.bus import StoredDeadLetter
from headrace.cli.console import terminal
from headrace.cli.console.options import json_option, nats_url_option, open_bus, state_dir_option
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.supervisor.state.state_dir import StateDir


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter as `--json` prints it, without prompt and output."""

    request_id: str
    """Empty if the message could not be read."""
    model: str
    time: str
    """RFC 3339, in UTC."""
    attempts: int
    """Failed attempts in a row, up to the last."""
    reason: str


@click.command("dead-letters")
@state_dir_option
@nats_url_option
@click.option("--limit", type=click.IntRange(min=1), default=100, help="Show at most N.")
@json_option
def dead_letters(state_dir: StateDir, nats_url: str | None, limit: int, as_json: bool) -> None:
    """Show requests that failed on every attempt, newest first. They are kept for a week."""
    rows = asyncio.run(_read(nats_url, state_dir, limit))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = terminal.table("request", "model", "time", "attempts", "reason")
    for row in rows:
        name = row.request_id or "(unreadable)"
        table.add_row(*map(escape, (name, row.model, row.time, str(row.attempts), row.reason)))
    terminal.console().print(table if rows else "no dead letters")


async def _read(nats_url: str | None, state_dir: StateDir, limit: int) -> list[DeadLetterRow]:
    async with open_bus(nats_url, state_dir, command="dead-letters") as bus:
        return [_row(stored) for stored in await bus.dead_letters(limit=limit)]


def _row(stored: StoredDeadLetter) -> DeadLetterRow:
    letter = DeadLetter.FromString(stored.letter)
    try:
        request_id = RequestRecord.FromString(letter.message).request_id
    except DecodeError:
        request_id = ""
    model, time = letter.model or stored.lane, letter.time.ToJsonString()
    return DeadLetterRow(request_id, model, time, letter.attempts, letter.reason)
