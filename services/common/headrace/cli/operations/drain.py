"""headrace drain"""

from __future__ import annotations

import asyncio
import time

import click

from headrace.admin.v1 import operations_pb2 as pb
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.bus import NoResponders
from headrace.bus.control import DrainReply, request_drain, request_undrain
from headrace.bus.urls import redact_url
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.options import MeshTarget, mesh_options, open_bus
from headrace.cli.console.terminal import ChangeLines
from headrace.client import AsyncClient
from headrace.errors import CapacityError, HeadraceError
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
@mesh_options
@click.option("--nats-url", help="Broker of a mesh elsewhere, in place of its URL.")
def drain(
    mesh: MeshTarget, name: str, grace_s: float | None, undo: bool, nats_url: str | None
) -> None:
    """Stop the process NAME of a mesh, on whichever machine, without losing a request.

    A worker accepts no more requests, hands over those that still run, and stays stopped until
    --undo or until its mesh is started again. What no `headrace up` has started, whatever started
    it may start again. A scheduler or gateway stops and is started again. `headrace status` and
    `headrace fleet` show the names.
    """
    if grace_s is not None and undo:
        raise InvalidOption("--grace is of a drain; --undo takes none")
    if nats_url is not None:
        asyncio.run(_over_bus(nats_url, mesh.state_dir, name, grace_s, undo))
    elif mesh.is_local:
        _in_state_dir(mesh, name, grace_s, undo)
    else:
        asyncio.run(_over_api(mesh, name, grace_s, undo))


# From any machine: the request is sent, and not waited for.


async def _over_bus(
    nats_url: str, state_dir: StateDir, name: str, grace_s: float | None, undo: bool
) -> None:
    if undo:
        _print_undone(name, await _undrain_over_bus(nats_url, state_dir, name))
    else:
        _print_drains(name, await _drain_over_bus(nats_url, state_dir, name, grace_s))


async def _over_api(mesh: MeshTarget, name: str, grace_s: float | None, undo: bool) -> None:
    if undo:
        _print_undone(name, await _undrain_over_api(mesh, name))
    else:
        _print_drains(name, await _drain_over_api(mesh, name, grace_s))


def _print_drains(name: str, reply: DrainReply) -> None:
    if not reply.drains:
        click.echo(f"{name} is drained already; start it again with --undo")
        return
    click.echo(f"{name} drains; it stops once its requests have ended or moved to another process")
    if reply.stays_stopped:
        click.echo("its supervisor does not start it again before --undo")


def _print_undone(name: str, was_drained: bool) -> None:
    if not was_drained:
        raise InvalidOption(f"{name} is not drained; there is nothing to undo")
    click.echo(f"{name} is started again")


# On the machine of its supervisor: the end of it is waited for.


def _in_state_dir(mesh: MeshTarget, name: str, grace_s: float | None, undo: bool) -> None:
    process = _find(mesh.state_dir, name)
    if undo:
        asyncio.run(_undo(mesh, process))
    elif process.drained:
        click.echo(f"{name} is drained already; start it again with `headrace drain {name} --undo`")
    elif process.role == Role.WORKER:
        asyncio.run(_drain_worker(mesh, process, grace_s))
    else:
        asyncio.run(_restart(mesh, process))


def _find(state_dir: StateDir, name: str) -> ProcessRecord:
    processes = [p for p in state_dir.read_record().processes if p.role in _DRAINABLE]
    found = next((p for p in processes if p.name == name), None)
    if found is None:
        known = ", ".join(p.name for p in processes)
        raise InvalidOption(f"there is no process {name} to drain; there are {known}")
    return found


async def _drain_worker(mesh: MeshTarget, worker: ProcessRecord, grace_s: float | None) -> None:
    began_s, lines, is_over = time.monotonic(), ChangeLines(worker.name), False
    async with mesh.admin_client() as client:
        await _warn_of_unserved_models(client, worker.name)
        await _request_drain(mesh, worker.name, grace_s)
        while not mesh.state_dir.read_process(worker.name).drained:
            if not is_over and grace_s is not None and time.monotonic() - began_s >= grace_s:
                lines.update(f"{grace_s:g} s are over; other workers take over its requests")
                is_over = True
            lines.update(await _running(client, worker.name))
            await asyncio.sleep(_POLL_S)
    undo = f"start it again with `headrace drain {worker.name} --undo`"
    click.echo(f"{worker.name} has stopped after {time.monotonic() - began_s:.1f} s; {undo}")


async def _request_drain(mesh: MeshTarget, name: str, grace_s: float | None) -> None:
    try:
        await _drain_over_api(mesh, name, grace_s)
    except CapacityError:
        # Why not only so: control audits it. A mesh is drained without control as well.
        await _drain_over_bus(None, mesh.state_dir, name, grace_s)


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


async def _undo(mesh: MeshTarget, process: ProcessRecord) -> None:
    if not process.drained:
        raise InvalidOption(f"{process.name} is not drained; there is nothing to undo")
    try:
        await _undrain_over_api(mesh, process.name)
    except CapacityError:
        await _undrain_over_bus(None, mesh.state_dir, process.name)
    waited_s = await _until_another_run(mesh.state_dir, process)
    click.echo(f"{process.name} serves again after {waited_s:.1f} s")


async def _restart(mesh: MeshTarget, process: ProcessRecord) -> None:
    await _request_drain(mesh, process.name, None)
    click.echo(f"{process.name}: drains")
    waited_s = await _until_another_run(mesh.state_dir, process)
    click.echo(f"{process.name} has stopped and is back after {waited_s:.1f} s")


async def _until_another_run(state_dir: StateDir, before: ProcessRecord) -> float:
    """Wait until another run of the process is ready, printing why it is not; return how long."""
    began_s, name, lines = time.monotonic(), before.name, ChangeLines(before.name)
    await wait_until_ready(state_dir, name, other_than=before.pid, on_reason=lines.update)
    return time.monotonic() - began_s


# The same word, both ways.


async def _drain_over_api(mesh: MeshTarget, name: str, grace_s: float | None) -> DrainReply:
    request = pb.DrainWorkerRequest(name=f"workers/{name}")
    if grace_s is not None:
        request.grace.FromNanoseconds(int(grace_s * 1e9))
    async with admin_api(mesh) as channel:
        found = await OperationServiceStub(channel).DrainWorker(request)
    return DrainReply(found.draining > 0, found.stays_stopped)


async def _undrain_over_api(mesh: MeshTarget, name: str) -> bool:
    request = pb.UndrainWorkerRequest(name=f"workers/{name}")
    async with admin_api(mesh) as channel:
        return bool((await OperationServiceStub(channel).UndrainWorker(request)).was_drained)


async def _drain_over_bus(
    nats_url: str | None, state_dir: StateDir, name: str, grace_s: float | None
) -> DrainReply:
    async with open_bus(nats_url, state_dir, command="drain") as bus:
        try:
            return await request_drain(bus, name, grace_s=grace_s, timeout_s=_REPLY_S)
        except NoResponders:
            where = f" to {redact_url(nats_url)}" if nats_url is not None else ""
            raise MeshError(f"no process named {name} is connected{where}") from None


async def _undrain_over_bus(nats_url: str | None, state_dir: StateDir, name: str) -> bool:
    async with open_bus(nats_url, state_dir, command="drain") as bus:
        try:
            return await request_undrain(bus, name, timeout_s=_REPLY_S)
        except NoResponders as error:
            raise MeshError(str(error)) from None
