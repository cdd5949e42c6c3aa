"""headrace lanes"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from headrace.cli.console import terminal
from headrace.cli.console.options import MeshTarget, mesh_options
from headrace.client import AsyncClient
from headrace.priorities import priority_name
from headrace.v1 import fleet_pb2

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane as `--json` prints it."""

    model: str
    priority: str
    waiting: int
    running: int
    max_waiting: int
    oldest_wait_s: float | None
    """None if no request waits."""
    estimated_wait_s: float | None
    """Of a request that arrives now; None while unknown."""
    workers: int
    """Workers that accept requests of this model now."""
    scheduler: str
    lane_id: str
    """Of the model: its name in the broker's subjects and in Kubernetes."""

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.priority

    @property
    def state(self) -> tuple[object, ...]:
        """What makes a change; waits differ from moment to moment and do not."""
        return self.waiting, self.running, self.max_waiting, self.workers, self.scheduler

    def __str__(self) -> str:
        waits = {"oldest": self.oldest_wait_s, "estimate": self.estimated_wait_s}
        shown = "".join(f", {name} {s:.2f} s" for name, s in waits.items() if s is not None)
        served = f"{self.workers} workers" if self.workers else "no worker"
        return (
            f"{self.model}/{self.priority}: {self.waiting} of {self.max_waiting} waiting, "
            f"{self.running} running, {served}{shown}, led by {self.scheduler}"
        )


@click.command()
@click.option("--watch", is_flag=True, help="Show changes until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for scripts; with --watch a line a change."
)
@mesh_options
def lanes(mesh: MeshTarget, watch: bool, as_json: bool) -> None:
    """Show the queues: one lane for each model and priority."""
    console = terminal.console()
    if not watch:
        rows = asyncio.run(_read(mesh))
        click.echo(_as_json(rows, indent=1)) if as_json else console.print(_table(rows))
    elif as_json:
        asyncio.run(_watch(mesh, on_change(lambda rows, _: click.echo(_as_json(rows)))))
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            asyncio.run(_watch(mesh, lambda rows: live.update(_table(rows), refresh=True)))
    else:
        asyncio.run(_watch(mesh, on_change(_print_changed)))


def on_change(
    show: Callable[[list[LaneRow], list[LaneRow]], None],
) -> Callable[[list[LaneRow]], None]:
    """Return a function of all rows that calls `show` with them and the changed ones, if any."""
    before: dict[tuple[str, str], LaneRow] = {}

    def update(rows: list[LaneRow]) -> None:
        changed = [
            row for row in rows if row.key not in before or before[row.key].state != row.state
        ]
        has_removed = bool(before.keys() - {row.key for row in rows})
        before.clear()
        before.update({row.key: row for row in rows})
        if changed or has_removed:
            show(rows, changed)

    return update


def _print_changed(_: list[LaneRow], changed: list[LaneRow]) -> None:
    for row in changed:
        click.echo(f"{time.strftime('%H:%M:%S')} {row}")


async def _watch(mesh: MeshTarget, show: Callable[[list[LaneRow]], None]) -> None:
    async with mesh.admin_client() as client:
        while True:
            show(await _rows(client))
            await asyncio.sleep(_POLL_S)


async def _read(mesh: MeshTarget) -> list[LaneRow]:
    async with mesh.admin_client() as client:
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
            *map(terminal.seconds, (row.oldest_wait_s, row.estimated_wait_s)),
            str(row.workers) if row.workers else "[red]none[/]",
            *(row.scheduler, row.lane_id),
        )
    return table
