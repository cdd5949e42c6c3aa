"""headrace model"""

from __future__ import annotations

import asyncio
import json

import click
from rich.markup import escape

from headrace.cli.console import terminal
from headrace.cli.console.options import (
    MeshTarget,
    json_option,
    mesh_options,
    nats_url_option,
    open_bus,
    state_dir_option,
)
from headrace.supervisor.model_removal import remove_model
from headrace.supervisor.state.state_dir import StateDir
from headrace.v1 import models_pb2


@click.group()
def model() -> None:
    """List the configured models, or remove one."""


@model.command("list")
@json_option
@mesh_options
def list_models(mesh: MeshTarget, as_json: bool) -> None:
    """List the configured models: names, aliases, workers and lane ids."""
    with mesh.client() as client:
        models = client.models()
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in models], indent=1))
        return
    table = terminal.table("name", "aliases", "workers", "state", "lane id")
    for each in models:
        taken = [f"{name} (another model's)" for name in each.taken_aliases]
        aliases = ", ".join((*each.aliases, *taken)) or "-"
        state = "ready" if each.ready else "waits for a worker"
        table.add_row(escape(each.name), escape(aliases), str(each.workers), state, each.lane_id)
    terminal.console().print(table if models else "no model is configured")


@model.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Remove it although a worker serves it.")
@nats_url_option
@state_dir_option
def remove(name: str, force: bool, nats_url: str | None, state_dir: StateDir) -> None:
    """Remove the model NAME. Its requests get 404, and those that wait end with 404.

    A model stays configured when its workers stop, so that its requests wait for the next worker.
    `headrace up` removes the models that it configured and no longer lists.
    """
    asyncio.run(_remove(nats_url, state_dir, name, force=force))
    click.echo(f"{name} is removed")


def _as_dict(found: models_pb2.Model) -> dict[str, object]:
    return {
        "name": found.name,
        "aliases": list(found.aliases),
        "taken_aliases": list(found.taken_aliases),
        "ready": found.ready,
        "workers": found.workers,
        "lane_id": found.lane_id,
    }


async def _remove(nats_url: str | None, state_dir: StateDir, name: str, *, force: bool) -> None:
    async with open_bus(nats_url, state_dir, command="model remove") as bus:
        await remove_model(bus, name, force=force)
