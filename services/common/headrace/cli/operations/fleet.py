"""headrace fleet"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape

from headrace.admin.v1 import operations_pb2 as pb
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.options import MeshTarget, mesh_options
from headrace.priorities import priority_name


@click.command()
@click.option("--watch", is_flag=True, help="Show it each second until Ctrl-C.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, for scripts; with --watch a line each second.",
)
@mesh_options
def fleet(mesh: MeshTarget, watch: bool, as_json: bool) -> None:
    """Show workers with their tokens per second and slots, and lanes with what waits."""
    asyncio.run(_watch(mesh, as_json) if watch else _show(mesh, as_json))


async def _show(mesh: MeshTarget, as_json: bool) -> None:
    async with admin_api(mesh) as channel:
        async for seen in OperationServiceStub(channel).WatchFleet(pb.WatchFleetRequest()):
            if as_json:
                click.echo(json.dumps(_as_dict(seen), indent=1))
            else:
                terminal.console().print(_tables(seen))
            return


async def _watch(mesh: MeshTarget, as_json: bool) -> None:
    console = terminal.console()
    async with admin_api(mesh) as channel:
        stream = OperationServiceStub(channel).WatchFleet(pb.WatchFleetRequest())
        if as_json or not console.is_terminal:
            async for seen in stream:
                click.echo(json.dumps(_as_dict(seen)) if as_json else _line(seen))
            return
        with Live(console=console, auto_refresh=False) as live:
            async for seen in stream:
                live.update(_tables(seen), refresh=True)


def _tables(seen: pb.Fleet) -> Group:
    workers = terminal.table("worker", "models", "tokens/s", "running", "free slots", "state")
    for worker, rate in _workers(seen):
        workers.add_row(
            escape(worker.name),
            escape(" ".join(worker.models)),
            f"{rate:.0f}",
            str(worker.running),
            f"{worker.free_slots} of {worker.total_slots}",
            "drains" if worker.draining else "serves",
        )
    lanes = terminal.table("model", "priority", "waiting", "running", "bound", "oldest")
    for lane in seen.lanes:
        oldest_s = lane.oldest_wait.ToNanoseconds() / 1e9 if lane.HasField("oldest_wait") else None
        lanes.add_row(
            *(escape(lane.model), priority_name(lane.priority)),
            *map(str, (lane.waiting, lane.running, lane.max_waiting)),
            terminal.seconds(oldest_s),
        )
    return Group(workers, "", lanes)


def _line(seen: pb.Fleet) -> str:
    rate = sum(each.output_tokens_per_second for each in seen.rates)
    free = sum(worker.free_slots for worker in seen.workers)
    slots = sum(worker.total_slots for worker in seen.workers)
    waiting = sum(lane.waiting for lane in seen.lanes)
    return (
        f"{seen.time.ToJsonString()} {len(seen.workers)} workers, {rate:.0f} tokens/s, "
        f"{free} of {slots} slots free, {waiting} waiting"
    )


def _workers(seen: pb.Fleet) -> Iterator[tuple[Any, float]]:
    rates = {rate.worker_id: rate.output_tokens_per_second for rate in seen.rates}
    return ((worker, rates.get(worker.worker_id, 0.0)) for worker in seen.workers)


def _as_dict(seen: pb.Fleet) -> dict[str, Any]:
    return {
        "time": seen.time.ToJsonString(),
        "workers": [
            {
                "name": worker.name,
                "id": worker.worker_id,
                "models": list(worker.models),
                "output_tokens_per_s": rate,
                "running": worker.running,
                "free_slots": worker.free_slots,
                "total_slots": worker.total_slots,
                "draining": worker.draining,
            }
            for worker, rate in _workers(seen)
        ],
        "lanes": [
            {
                "model": lane.model,
                "priority": priority_name(lane.priority),
                "waiting": lane.waiting,
                "running": lane.running,
                "max_waiting": lane.max_waiting,
            }
            for lane in seen.lanes
        ],
    }
