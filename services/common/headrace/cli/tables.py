"""headrace lanes, headrace workers"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from google.protobuf.duration_pb2 import Duration

from headrace.cli import terminal
from headrace.cli.status import priority_name
from headrace.cli.where import mesh_options, mesh_url
from headrace.client import AsyncClient
from headrace.v1 import fleet_pb2


@click.command()
@mesh_options
def lanes(url: str | None, state_dir: Path) -> None:
    """Show the queues: one lane for each model and priority."""
    found = asyncio.run(_lanes(mesh_url(url, state_dir)))
    table = terminal.table(
        *("model", "priority", "waiting", "running", "bound", "oldest", "estimate", "scheduler")
    )
    for lane in found:
        table.add_row(
            *(lane.model, priority_name(lane.priority)),
            *map(str, (lane.waiting, lane.running, lane.max_waiting)),
            _seconds(lane.oldest_wait) if lane.HasField("oldest_wait") else "-",
            _seconds(lane.estimated_wait) if lane.HasField("estimated_wait") else "-",
            lane.scheduler,
        )
    terminal.console().print(table)


@click.command()
@mesh_options
def workers(url: str | None, state_dir: Path) -> None:
    """Show the workers, their models and their free slots."""
    found = asyncio.run(_workers(mesh_url(url, state_dir)))
    table = terminal.table("name", "models", "running", "free slots", "state", "id")
    for worker in found:
        table.add_row(
            worker.name,
            " ".join(worker.models),
            str(worker.running),
            f"{worker.free_slots} of {worker.total_slots}",
            "drains" if worker.draining else "serves",
            worker.worker_id,
        )
    terminal.console().print(table)


async def _lanes(url: str) -> list[fleet_pb2.Lane]:
    async with AsyncClient(url) as client:
        return await client.lanes()


async def _workers(url: str) -> list[fleet_pb2.Worker]:
    async with AsyncClient(url) as client:
        return await client.workers()


def _seconds(duration: Duration) -> str:
    return f"{duration.ToNanoseconds() / 1e9:.2f} s"
