"""headrace model"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.markup import escape

from headrace.bus import BusError
from headrace.bus.jetstream import connect
from headrace.cli.console import terminal
from headrace.cli.console.options import broker_url, mesh_options, mesh_url, state_dir_option
from headrace.client import AsyncClient
from headrace.errors import BrokerUnavailable
from headrace.supervisor.model_removal import remove_model as forget_model
from headrace.v1 import models_pb2

_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class ModelRow:
    """What `--json` prints of each."""

    name: str
    aliases: list[str]
    taken_aliases: list[str]
    """That its worker wants too, and that mean another model."""
    ready: bool
    """A worker serves it now; else its requests wait."""
    workers: int
    lane_id: str


@click.group()
def model() -> None:
    """Show which models are configured, or remove one."""


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@mesh_options
def list_models(url: str | None, state_dir: Path, as_json: bool) -> None:
    """Show the configured models: their names, whether a worker serves them, and their lane ids."""
    rows = asyncio.run(_rows(mesh_url(url, state_dir)))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = terminal.table("name", "aliases", "workers", "state", "lane id")
    for row in rows:
        taken = [f"{name} (another model's)" for name in row.taken_aliases]
        aliases = ", ".join((*row.aliases, *taken)) or "-"
        state = "ready" if row.ready else "waits for a worker"
        table.add_row(escape(row.name), escape(aliases), str(row.workers), state, row.lane_id)
    terminal.console().print(table if rows else "no model is configured")


@model.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if a worker serves it.")
@click.option("--nats-url", help="Broker. Default: of the mesh in --state-dir.")
@state_dir_option
def forget(name: str, force: bool, nats_url: str | None, state_dir: Path) -> None:
    """Remove the model NAME: requests for it get 404, and those that wait end with that.

    A model stays configured when its workers leave, so that its requests wait for the next one;
    `headrace up` removes by itself what it has configured and lists no more.
    """
    asyncio.run(_forget(nats_url or broker_url(state_dir), name, force=force))
    click.echo(f"{name} is not configured any more")


async def _rows(url: str) -> list[ModelRow]:
    async with AsyncClient(url) as client:
        return [_row(each) for each in await client.models()]


def _row(found: models_pb2.Model) -> ModelRow:
    return ModelRow(
        name=found.name,
        aliases=list(found.aliases),
        taken_aliases=list(found.taken_aliases),
        ready=found.ready,
        workers=found.workers,
        lane_id=found.lane_id,
    )


async def _forget(nats_url: str, name: str, *, force: bool) -> None:
    try:
        bus = await connect(nats_url, name="headrace model", wait_s=_CONNECT_S, replicas=None)
        try:
            await forget_model(bus, name, force=force)
        finally:
            await bus.close()
    except BusError as error:
        raise BrokerUnavailable(str(error)) from error
