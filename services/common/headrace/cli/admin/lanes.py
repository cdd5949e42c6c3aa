"""headrace lanes"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from headrace.cli.console import terminal
from headrace.cli.console.options import mesh_options, mesh_url
from headrace.client import AsyncClient
from headrace.priorities import priority_name
from headrace.v1 import fleet_pb2

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class LaneRow:
    """What `--json` prints of each."""

    model: str
    priority: str
    waiting: int
    running: int
    max_waiting: int
    oldest_wait_s: float | None
    """None if nobody waits."""
    estimated_wait_s: float | None
    """Of a request that comes now; None while unknown."""
    workers: int
    """That take requests of this model now."""
    scheduler: str
    lane_id: str
    """Of the model: what names it in the broker's subjects, and in Kubernetes."""

    @property
    def change_key(self) -> tuple[object, ...]:
        """What must differ for a line of its own: waits differ from moment to moment."""
        return self.waiting, self.running, self.max_waiting, self.workers, self.scheduler

    def __str__(self) -> str:
        waits = "".join(
            f", {name} {wait_s:.2f} s"
            for name, wait_s in (
                ("oldest", self.oldest_wait_s),
                ("estimate", self.estimated_wait_s),
            )
            if wait_s is not None
        )
        served = f"{self.workers} workers" if self.workers else "no worker"
        return (
            f"{self.model}/{self.priority}: {self.waiting} of {self.max_waiting} waiting, "
            f"{self.running} running, {served}{waits}, led by {self.scheduler}"
        )


Show = Callable[[list[LaneRow]], None]


@click.command()
@click.option("--watch", is_flag=True, help="Go on showing them until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="For scripts; with --watch a line per change."
)
@mesh_options
def lanes(url: str | None, state_dir: Path, watch: bool, as_json: bool) -> None:
    """Show the queues: one lane for each model and priority."""
    door = mesh_url(url, state_dir)
    console = terminal.console()
    if not watch:
        rows = asyncio.run(_read(door))
        click.echo(_as_json(rows, indent=1)) if as_json else console.print(_table(rows))
    elif as_json:
        asyncio.run(_follow(door, when_changed(lambda rows, _: click.echo(_as_json(rows)))))
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            asyncio.run(_follow(door, lambda rows: live.update(_table(rows), refresh=True)))
    else:
        asyncio.run(_follow(door, when_changed(_print_changed)))


def when_changed(show: Callable[[list[LaneRow], list[LaneRow]], None]) -> Show:
    """Call `show` with all rows and with those that differ from before, if any does."""
    before: dict[tuple[str, str], LaneRow] = {}

    def look(rows: list[LaneRow]) -> None:
        changed = [row for row in rows if _differs(before.get((row.model, row.priority)), row)]
        gone = before.keys() - {(row.model, row.priority) for row in rows}
        before.clear()
        before.update({(row.model, row.priority): row for row in rows})
        if changed or gone:
            show(rows, changed)

    return look


def _differs(before: LaneRow | None, now: LaneRow) -> bool:
    return before is None or before.change_key != now.change_key


def _print_changed(_: list[LaneRow], changed: list[LaneRow]) -> None:
    for row in changed:
        click.echo(f"{time.strftime('%H:%M:%S')} {row}")


async def _follow(url: str, show: Show) -> None:
    async with AsyncClient(url) as client:
        while True:
            show(await _rows(client))
            await asyncio.sleep(_LOOK_EVERY_S)


async def _read(url: str) -> list[LaneRow]:
    async with AsyncClient(url) as client:
        return await _rows(client)


async def _rows(client: AsyncClient) -> list[LaneRow]:
    lanes, workers = await asyncio.gather(client.lanes(), client.workers())
    return [_row(lane, workers) for lane in lanes]


def _row(lane: fleet_pb2.Lane, workers: list[fleet_pb2.Worker]) -> LaneRow:
    has_oldest, has_estimate = lane.HasField("oldest_wait"), lane.HasField("estimated_wait")
    return LaneRow(
        model=lane.model,
        priority=priority_name(lane.priority),
        waiting=lane.waiting,
        running=lane.running,
        max_waiting=lane.max_waiting,
        oldest_wait_s=lane.oldest_wait.ToNanoseconds() / 1e9 if has_oldest else None,
        estimated_wait_s=lane.estimated_wait.ToNanoseconds() / 1e9 if has_estimate else None,
        workers=sum(lane.model in w.models and not w.draining for w in workers),
        scheduler=lane.scheduler,
        lane_id=lane.lane_id,
    )


def _as_json(rows: list[LaneRow], *, indent: int | None = None) -> str:
    return json.dumps({"lanes": [asdict(row) for row in rows]}, indent=indent)


def _table(rows: list[LaneRow]) -> Table:
    table = terminal.table(
        *("model", "priority", "waiting", "running", "bound", "oldest", "estimate"),
        *("workers", "scheduler", "lane id"),
    )
    for row in rows:
        table.add_row(
            *(escape(row.model), row.priority),
            *map(str, (row.waiting, row.running, row.max_waiting)),
            *map(_seconds, (row.oldest_wait_s, row.estimated_wait_s)),
            str(row.workers) if row.workers else "[red]none[/]",
            *(row.scheduler, row.lane_id),
        )
    return table


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
