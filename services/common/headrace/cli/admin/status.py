"""headrace status"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass

import click
import httpx
from rich.markup import escape

from headrace.cli.console import terminal
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.errors import HeadraceError, PermissionDenied
from headrace.priorities import priority_name
from headrace.supervisor.health import health_url, not_ready_reason
from headrace.supervisor.state.disk import disk_problem
from headrace.supervisor.state.state_dir import ProcessRecord
from headrace.v1 import fleet_pb2

_PROBE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus(ProcessRecord):
    """A process whose `fault` may also be what it reports itself."""

    healthy: bool
    """Whether its readiness probe passes now."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    priority: str
    waiting: int
    running: int
    max_waiting: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    name: str
    free_slots: int
    total_slots: int
    running: int
    draining: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    id: str
    lanes: list[LaneStatus]
    workers: list[WorkerStatus]


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The mesh as `--json` prints it."""

    url: str | None
    disk: str
    """Why nothing can be written to the state directory; empty if it can."""
    processes: list[ProcessStatus]
    models: list[ModelStatus]
    fleet_unknown: str = ""
    """Why lanes and workers are not known; empty: they are."""

    @property
    def is_healthy(self) -> bool:
        """False also where something is unknown."""
        processes = all(process.healthy or process.drained for process in self.processes)
        models = bool(self.models) and all(model.lanes for model in self.models)
        return processes and models and not self.disk


@click.command()
@mesh_options
@json_option
def status(mesh: MeshTarget, as_json: bool) -> int:
    """Show every process and model of the mesh of --state-dir, or the models of one at --url.

    Exit with 1 if a process that was not drained is unhealthy, or if the mesh does not answer.
    """
    read = _read_local(mesh) if mesh.is_local else _read_remote(mesh)
    found = asyncio.run(read)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _print(found)
    return 0 if found.is_healthy else 1


async def _read_local(mesh: MeshTarget) -> MeshStatus:
    """Return the mesh's state; models have no lanes and workers if its API does not answer."""
    state_dir = mesh.state_dir
    record, disk = state_dir.read_record(), disk_problem(state_dir.folder)
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_S) as http:
        processes = await asyncio.gather(*(_process(http, each) for each in record.processes))
    models, unknown = await _models(None if record.url is None else mesh, record.models)
    return MeshStatus(record.url, str(disk or ""), list(processes), models, unknown)


async def _read_remote(mesh: MeshTarget) -> MeshStatus:
    """Return what the mesh's API reports; its processes cannot be reached."""
    async with mesh.async_client() as client:
        names = [model.name for model in await client.models()]
    models, unknown = await _models(mesh, names)
    return MeshStatus(mesh.url, "", [], models, unknown)


async def _process(http: httpx.AsyncClient, record: ProcessRecord) -> ProcessStatus:
    if record.drained:
        return ProcessStatus(healthy=False, **asdict(record))
    why = await not_ready_reason(http, health_url(record.role, record.ports))
    if why is None and not record.fault:
        return ProcessStatus(healthy=True, **asdict(record))
    fault = record.fault or why or "does not answer"
    return ProcessStatus(healthy=False, **(asdict(record) | {"fault": fault}))


async def _models(mesh: MeshTarget | None, names: list[str]) -> tuple[list[ModelStatus], str]:
    """Return the models, and why their lanes and workers are not known; empty: they are."""
    unknown = "the mesh has no port yet" if mesh is None else ""
    lanes: list[fleet_pb2.Lane] = []
    workers: list[fleet_pb2.Worker] = []
    if mesh is not None:
        try:
            async with mesh.admin_client() as client:
                lanes, workers = await asyncio.gather(client.lanes(), client.workers())
        except PermissionDenied:
            unknown = "this key may not see them; use an administrator's, of admin:*"
        except HeadraceError as error:
            unknown = str(error)
    return [
        ModelStatus(
            name,
            [_lane(lane) for lane in lanes if lane.model == name],
            [_worker(worker) for worker in workers if name in worker.models],
        )
        for name in names
    ], unknown


def _lane(lane: fleet_pb2.Lane) -> LaneStatus:
    return LaneStatus(priority_name(lane.priority), lane.waiting, lane.running, lane.max_waiting)


def _worker(worker: fleet_pb2.Worker) -> WorkerStatus:
    return WorkerStatus(
        worker.name, worker.free_slots, worker.total_slots, worker.running, worker.draining
    )


def _print(found: MeshStatus) -> None:
    console = terminal.console()
    console.print(f"mesh at {found.url or '(no port yet)'}")
    table = terminal.table("role", "name", "pid", "ports", "health", "restarts")
    for each in found.processes:
        ports = " ".join(f"{name}:{port}" for name, port in sorted(each.ports.items()))
        health = "[green]healthy[/]" if each.healthy else "[red]unhealthy[/]"
        if each.drained:
            health = "[yellow]drained[/]"
        table.add_row(each.role, each.name, str(each.pid or "-"), ports, health, str(each.restarts))
    if found.processes:
        console.print(table)
    if found.disk:
        console.print(f"nothing can be stored: {found.disk}", markup=False, soft_wrap=True)
    for each in found.processes:
        last_end = each.last_end and f"its last run {each.last_end}"
        for fact in filter(None, (each.fault, last_end)):
            console.print(f"{each.name}: {fact}", markup=False, soft_wrap=True)
    if found.fleet_unknown:
        for model in found.models:
            console.print(f"model {escape(model.id)}: its lanes and workers are not known")
        console.print(f"why: {found.fleet_unknown}", markup=False, soft_wrap=True)
        return
    for model in found.models:
        waiting = ", ".join(f"{lane.priority} {lane.waiting} waiting" for lane in model.lanes)
        slots = sum(worker.total_slots for worker in model.workers)
        free = sum(worker.free_slots for worker in model.workers)
        console.print(
            f"model {escape(model.id)}: {len(model.workers)} workers, {free} of {slots} slots "
            f"free; lanes: {waiting or 'none yet'}"
        )
