"""headrace drain"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import click
import httpx

from headrace.bus import BusError, NoResponders
from headrace.bus.control import request_drain
from headrace.bus.jetstream import connect, redact_url
from headrace.cli.console.options import state_dir_option
from headrace.client import AsyncClient
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.supervisor.health import health_url, not_ready_reason
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import InvalidOption, MeshError
from headrace.supervisor.state.state_dir import ProcessRecord, StateDir
from headrace.v1 import fleet_pb2

_LOOK_EVERY_S = 0.1
_ORDER_S = 5.0
_DRAINED = (Role.WORKER, Role.SCHEDULER, Role.GATEWAY)


@click.command()
@click.argument("name")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    help="Seconds that a worker's requests may go on there; then others go on with them. "
    "Default, and most: the worker's setting drain_s.",
)
@click.option("--undo", is_flag=True, help="Let a drained worker in again.")
@state_dir_option
@click.option(
    "--nats-url",
    help="Broker of a mesh elsewhere: the process is told to leave, as by SIGTERM, and whatever "
    "started it may start it again.",
)
def drain(
    name: str, grace_s: float | None, undo: bool, state_dir: Path, nats_url: str | None
) -> None:
    """Let the process NAME of the mesh of --state-dir leave, and lose nothing.

    A worker takes no more work, hands over what it still runs, and is kept out until --undo or
    until the mesh is started anew. A scheduler or gateway leaves and is started again. Names are
    those of `headrace status`.
    """
    if nats_url is not None:
        if undo or grace_s is not None:
            raise InvalidOption(
                "--grace and --undo need the mesh of --state-dir; leave out --nats-url"
            )
        asyncio.run(_order(nats_url, name))
        return
    home = StateDir(state_dir)
    process = _find(home, name)
    if undo:
        asyncio.run(_let_in(home, process))
    elif process.drained:
        click.echo(f"{name} has been drained; `headrace drain {name} --undo` lets it in again")
    elif process.role == Role.WORKER:
        asyncio.run(_keep_out(home, process, grace_s))
    else:
        asyncio.run(_restart(home, process))


async def _order(nats_url: str, name: str) -> None:
    try:
        bus = await connect(nats_url, name="headrace drain", wait_s=_ORDER_S, replicas=None)
        try:
            await request_drain(bus, name, timeout_s=_ORDER_S)
        finally:
            await bus.close()
    except NoResponders:
        raise MeshError(f"no process named {name} is connected to {redact_url(nats_url)}") from None
    except BusError as error:
        raise BrokerUnavailable(str(error)) from error
    click.echo(f"{name} drains; it leaves once what it runs has ended or gone elsewhere")


def _find(home: StateDir, name: str) -> ProcessRecord:
    processes = [p for p in home.read_record().processes if p.role in _DRAINED]
    found = next((p for p in processes if p.name == name), None)
    if found is None:
        known = ", ".join(p.name for p in processes)
        raise InvalidOption(f"{name} is nothing that can be drained here; these can: {known}")
    return found


async def _keep_out(home: StateDir, worker: ProcessRecord, grace_s: float | None) -> None:
    began_s, told, is_hurried = time.monotonic(), "", False
    async with AsyncClient(home.read_record().url or "") as client:
        await _tell_who_is_left(client, worker.name)
        if not home.is_marked_drained(worker.name):  # else it drains already, and would be hurried
            home.mark_drained(worker.name)
            _terminate(worker)
        while not (await _now(home, worker.name)).drained:
            if not is_hurried and grace_s is not None and time.monotonic() - began_s >= grace_s:
                click.echo(f"{worker.name}: {grace_s:g} s are over; others go on with its requests")
                # Told again, it waits no longer.
                _terminate(worker)
                is_hurried = True
            fact = await _what_runs(client, worker.name)
            if fact not in ("", told):
                click.echo(f"{worker.name}: {fact}")
                told = fact
            await asyncio.sleep(_LOOK_EVERY_S)
    undo = f"`headrace drain {worker.name} --undo` lets it in again"
    click.echo(f"{worker.name} has left after {time.monotonic() - began_s:.1f} s; {undo}")


async def _tell_who_is_left(client: AsyncClient, name: str) -> None:
    own, others = await _workers(client, name)
    served = {model for other in others if not other.draining for model in other.models}
    for model in sorted({model for each in own for model in each.models} - served):
        click.echo(f"nobody else serves {model}: its requests wait until somebody does")


async def _what_runs(client: AsyncClient, name: str) -> str:
    """What is waited for; empty where it has left, or nobody can say."""
    own, _ = await _workers(client, name)
    return f"drains, {sum(each.running for each in own)} requests run" if own else ""


async def _workers(
    client: AsyncClient, name: str
) -> tuple[list[fleet_pb2.Worker], list[fleet_pb2.Worker]]:
    """Of this name, and the others; none of either where the door does not answer."""
    try:
        workers = await client.workers()
    except HeadraceError:
        return [], []
    return [w for w in workers if w.name == name], [w for w in workers if w.name != name]


async def _let_in(home: StateDir, process: ProcessRecord) -> None:
    if not process.drained:
        raise InvalidOption(f"{process.name} has not been drained; there is nothing to undo")
    home.clear_drained(process.name)
    began_s = time.monotonic()
    await _until_well(home, process)
    click.echo(f"{process.name} serves again after {time.monotonic() - began_s:.1f} s")


async def _restart(home: StateDir, process: ProcessRecord) -> None:
    began_s = time.monotonic()
    _terminate(process)
    click.echo(f"{process.name}: drains")
    await _until_well(home, process)
    click.echo(f"{process.name} has left and is back after {time.monotonic() - began_s:.1f} s")


async def _until_well(home: StateDir, before: ProcessRecord) -> None:
    """Until another run of it is ready, telling why it is not."""
    told = ""
    async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
        while True:
            now = await _now(home, before.name)
            if now.pid not in (None, before.pid):
                why = await not_ready_reason(http, health_url(now.role, now.ports))
                if why is None:
                    return
                if why not in ("", told):
                    click.echo(f"{now.name}: {why}")
                    told = why
            await asyncio.sleep(_LOOK_EVERY_S)


async def _now(home: StateDir, name: str) -> ProcessRecord:
    """Raises MeshNotRunning if the mesh was ended meanwhile."""
    processes = home.read_record().processes
    found = next((p for p in processes if p.name == name), None)
    if found is None:
        raise MeshError(f"the mesh in {home.folder} has been started anew, without {name}")
    return found


def _terminate(process: ProcessRecord) -> None:
    """SIGTERM; where it has just died by itself, that is what was wanted."""
    if process.pid is None:
        raise MeshError(f"{process.name} has just died and is being started again; try again soon")
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
