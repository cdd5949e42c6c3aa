"""headrace dead-letters"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from google.protobuf.message import DecodeError
from rich.markup import escape

from headrace.bus import BusUnavailable, StoredDeadLetter
from headrace.bus.jetstream import connect
from headrace.cli.console import terminal
from headrace.cli.console.options import broker_url, state_dir_option
from headrace.errors import BrokerUnavailable
from headrace.internal.v1.reports_pb2 import DeadLetter as Letter
from headrace.internal.v1.request_pb2 import RequestRecord

_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is shown of one, and what `--json` prints: neither prompt nor output."""

    request_id: str
    """Empty if the message could not be read."""
    model: str
    time: str
    """RFC 3339, in UTC."""
    attempts: int
    """That failed, the last of them in a row."""
    reason: str


@click.command("dead-letters")
@state_dir_option
@click.option("--nats-url", help="Broker. Default: of the mesh in --state-dir.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The latest."
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def dead_letters(state_dir: Path, nats_url: str | None, limit: int, as_json: bool) -> None:
    """Show the requests that failed on every attempt, newest first. They are kept for a week."""
    found = asyncio.run(_read(nats_url or broker_url(state_dir), limit))
    if as_json:
        click.echo(json.dumps([asdict(letter) for letter in found], indent=1))
        return
    table = terminal.table("request", "model", "time", "attempts", "reason")
    for each in found:
        name = each.request_id or "(unreadable)"
        shown = (name, each.model, each.time, str(each.attempts), each.reason)
        table.add_row(*map(escape, shown))
    terminal.console().print(table if found else "no dead letters")


async def _read(nats_url: str, limit: int) -> list[DeadLetter]:
    try:
        bus = await connect(
            nats_url, name="headrace dead-letters", wait_s=_CONNECT_S, replicas=None
        )
        try:
            return [_shown(each) for each in await bus.dead_letters(limit=limit)]
        finally:
            await bus.close()
    except BusUnavailable as error:
        raise BrokerUnavailable(str(error)) from error


def _shown(stored: StoredDeadLetter) -> DeadLetter:
    letter = Letter.FromString(stored.letter)
    try:
        request_id = RequestRecord.FromString(letter.message).request_id
    except DecodeError:
        request_id = ""
    return DeadLetter(
        request_id,
        letter.model or stored.lane,
        letter.time.ToJsonString(),
        letter.attempts,
        letter.reason,
    )
