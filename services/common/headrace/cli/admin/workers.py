"""headrace workers"""

from __future__ import annotations

import asyncio
import json

import click
from rich.markup import escape

from headrace.cli.console import terminal
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.v1 import fleet_pb2


@click.command()
@json_option
@mesh_options
def workers(mesh: MeshTarget, as_json: bool) -> None:
    """Show the workers, their models and their free slots."""
    found = asyncio.run(_workers(mesh))
    if as_json:
        click.echo(json.dumps([_as_dict(worker) for worker in found], indent=1))
        return
    table = terminal.table("name", "models", "running", "free slots", "state", "id")
    for worker in found:
        table.add_row(
            worker.name,
            escape(" ".join(worker.models)),
            str(worker.running),
            f"{worker.free_slots} of {worker.total_slots}",
            "drains" if worker.draining else "serves",
            worker.worker_id,
        )
    terminal.console().print(table)


def _as_dict(worker: fleet_pb2.Worker) -> dict[str, object]:
    return {
        "name": worker.name,
        "id": worker.worker_id,
        "models": list(worker.models),
        "running": worker.running,
        "free_slots": worker.free_slots,
        "total_slots": worker.total_slots,
        "draining": worker.draining,
    }


async def _workers(mesh: MeshTarget) -> list[fleet_pb2.Worker]:
    async with mesh.admin_client() as client:
        return await client.workers()
