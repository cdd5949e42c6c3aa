"""headrace drain"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import click

from headrace.bus import NoResponders
from headrace.bus.control import request_drain
from headrace.bus.urls import redact_url
from headrace.cli.console.options import open_bus, state_dir_option
from headrace.cli.console.terminal import ChangeLines
from headrace.client import AsyncClient
from headrace.errors import HeadraceError
from headrace.supervisor.health import wait_until_ready
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import InvalidOption, MeshError
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir
from headrace.v1 import fleet_pb2

_POLL_S = 0.1
_REPLY_S = 5.0
_DRAINABLE = (Role.WORKER, Role.SCHEDULER, Role.GATEWAY)


@click.command()
@click.argument("name")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    help="Seconds that a worker's requests may run on before other workers take them over. "
    "Default, and most: the worker's setting drain_s.",
)
@click.option("--undo", is_flag=True, help="Start a drained worker again.")
@state_dir_option
@click.option(
    "--nats-url",
    help="Broker of a mesh elsewhere: the process stops as at SIGTERM, and whatever started it may "
    "start it again.",
)
def drain(
    name: str, grace_s: float | None, undo: bool, state_dir: StateDir, nats_url: str | None
) -> None:
    """Stop the process NAME of the mesh of --state-dir without losing a request.

    A worker accepts no more requests, hands over those that still run, and stays stopped until
    --undo or until the mesh is started again. A scheduler or gateway stops and is started again.
    `headrace status` shows the names.
    """
    if nats_url is not None:
        if undo or grace_s is not None:
            raise InvalidOption("--grace and --undo need the mesh of --state-dir, not --nats-url")
        asyncio.run(_request_drain(nats_url, state_dir, name))
        return
    process = _find(state_dir, name)
    if undo:
        asyncio.run(_undo(state_dir, process))
    elif process.drained:
        click.echo(f"{name} is drained already; start it again with `headrace drain {name} --undo`")
    elif process.role == Role.WORKER:
        asyncio.run(_drain_worker(state_dir, process, grace_s))
    else:
        asyncio.run(_restart(state_dir, process))


async def _request_drain(nats_url: str, state_dir: StateDir, name: str) -> None:
    async with open_bus(nats_url, state_dir, command="drain") as bus:
        try:
            await request_drain(bus, name, timeout_s=_REPLY_S)
        except NoResponders:
            fact = f"no process named {name} is connected to {redact_url(nats_url)}"
            raise MeshError(fact) from None
    click.echo(f"{name} drains; it stops once its requests have ended or moved to another process")


def _find(state_dir: StateDir, name: str) -> ProcessRecord:
    processes = [p for p in state_dir.read_record().processes if p.role in _DRAINABLE]
    found = next((p for p in processes if p.name == name), None)
    if found is None:
        known = ", ".join(p.name for p in processes)
        raise InvalidOption(f"there is no process {name} to drain; there are {known}")
    return found


async def _drain_worker(state_dir: StateDir, worker: ProcessRecord, grace_s: float | None) -> None:
    began_s, lines, is_hurried = time.monotonic(), ChangeLines(worker.name), False
    async with AsyncClient(state_dir.read_record().url or "") as client:
        await _warn_of_unserved_models(client, worker.name)
        # Why not again where it drains already: a second SIGTERM ends its grace period.
        if not state_dir.is_marked_drained(worker.name):
            state_dir.mark_drained(worker.name)
            _terminate(worker)
        while not state_dir.read_process(worker.name).drained:
            if not is_hurried and grace_s is not None and time.monotonic() - began_s >= grace_s:
                lines.update(f"{grace_s:g} s are over; other workers take over its requests")
                _terminate(worker)
                is_hurried = True
            lines.update(await _running(client, worker.name))
            await asyncio.sleep(_POLL_S)
    undo = f"start it again with `headrace drain {worker.name} --undo`"
    click.echo(f"{worker.name} has stopped after {time.monotonic() - began_s:.1f} s; {undo}")


async def _warn_of_unserved_models(client: AsyncClient, name: str) -> None:
    own, others = await _workers(client, name)
    served = {model for other in others if not other.draining for model in other.models}
    for model in sorted({model for each in own for model in each.models} - served):
        click.echo(f"no other worker serves {model}: its requests wait until one does")


async def _running(client: AsyncClient, name: str) -> str:
    """Return what the drain waits for; empty if the worker has stopped or that is unknown."""
    own, _ = await _workers(client, name)
    return f"drains, {sum(each.running for each in own)} requests run" if own else ""


async def _workers(
    client: AsyncClient, name: str
) -> tuple[list[fleet_pb2.Worker], list[fleet_pb2.Worker]]:
    """Return the workers of this name and the others; none if the API does not answer."""
    try:
        workers = await client.workers()
    except HeadraceError:
        return [], []
    return [w for w in workers if w.name == name], [w for w in workers if w.name != name]


async def _undo(state_dir: StateDir, process: ProcessRecord) -> None:
    if not process.drained:
        raise InvalidOption(f"{process.name} is not drained; there is nothing to undo")
    state_dir.clear_drained(process.name)
    waited_s = await _until_another_run(state_dir, process)
    click.echo(f"{process.name} serves again after {waited_s:.1f} s")


async def _restart(state_dir: StateDir, process: ProcessRecord) -> None:
    _terminate(process)
    click.echo(f"{process.name}: drains")
    waited_s = await _until_another_run(state_dir, process)
    click.echo(f"{process.name} has stopped and is back after {waited_s:.1f} s")


async def _until_another_run(state_dir: StateDir, before: ProcessRecord) -> float:
    """Wait until another run of the process is ready, printing why it is not; return how long."""
    began_s, name, lines = time.monotonic(), before.name, ChangeLines(before.name)
    await wait_until_ready(state_dir, name, other_than=before.pid, on_reason=lines.update)
    return time.monotonic() - began_s


def _terminate(process: ProcessRecord) -> None:
    """Send SIGTERM; a process that has just died by itself has stopped as requested."""
    if process.pid is None:
        raise MeshError(f"{process.name} has just died and is being started again; retry soon")
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
