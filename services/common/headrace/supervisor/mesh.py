"""One machine's mesh: starts its processes in order, keeps them running, stops them in order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import httpx

from headrace.bus import Bus, BusError
from headrace.rpc.addresses import connect_host, join_host_port
from headrace.supervisor.drain_service import serve_drained_marks
from headrace.supervisor.health import (
    health_url,
    not_ready_reason,
    wait_for_canary,
    wait_for_gateway_canary,
)
from headrace.supervisor.liveness import LivenessMonitor
from headrace.supervisor.mesh_access import MeshAccess
from headrace.supervisor.model_removal import remove_unlisted
from headrace.supervisor.plan.mesh_options import LOOPBACK, MeshOptions, Role, ServicePlan, services
from headrace.supervisor.plan.program import Program, Service
from headrace.supervisor.plan.stop_timeouts import STOP_ORDER, mesh_stop_timeout_s, stop_timeout_s
from headrace.supervisor.probes import BrokerProbe, HttpProbe, Probe
from headrace.supervisor.public_port import external_urls, require_free_port
from headrace.supervisor.servers.envoy import Edge
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.state.failures import ProcessFailed
from headrace.supervisor.state.state_dir import MeshRecord, StateDir
from headrace.supervisor.supervised_process import SupervisedProcess

_LISTEN_TIMEOUT_S = 60.0
_POLL_S = 0.1
_LATE_S = 2.0
"""How long the mesh waits for what it can be ready without, once all the rest is."""
_REPORT_EVERY_S = 2.0
"""Shortest time between two reports of how far a worker has loaded its model."""


class Mesh:
    """All processes of one mesh. Call `run` once, with the state directory locked.

    Args:
        report: called with the name of a process, or "mesh", and what happened to it.
        on_ready: called with the URL and the models that are served there; cancelled if the mesh is
            to stop meanwhile.
    """

    def __init__(
        self,
        options: MeshOptions,
        state_dir: StateDir,
        *,
        report: Callable[[str, str], None],
        on_ready: Callable[[str, Sequence[str]], Awaitable[None]],
    ) -> None:
        self._options = options
        self._state_dir = state_dir
        self._report, self._on_ready = report, on_ready
        self._access = access = MeshAccess(options, state_dir)
        self._broker = Broker(
            state_dir.broker,
            sync_interval=options.sync_interval,
            passwords=access.passwords,
            tls=access.broker_tls,
        )
        self._edge = Edge(state_dir.edge, state_dir.logs, access.listener, proof=access.proof)
        self._processes: list[SupervisedProcess] = []
        self._ready = False
        self._is_written, self._has_reported_disk = True, False

    async def run(self, *, stop: asyncio.Event, kill: asyncio.Event) -> None:
        """Start the mesh, run it until `stop`, then drain it; `kill` ends it at once.

        Raises:
            PortTaken: nothing was started.
            ExceptionGroup: of ProcessFailed; nothing is left running.
        """
        require_free_port(self._options.host, self._options.port)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._access.keep(self._report, self._reload_broker))
            life = group.create_task(self._live(group))
            await _first_of(stop, life)
            life.cancel()
            drain = group.create_task(self._drain())
            await _first_of(kill, drain)
            keeper.cancel()
            for process in self._processes:
                process.kill()

    async def _live(self, group: asyncio.TaskGroup) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._options.ready_within_s):
                models = await self._start_all(group)
        except TimeoutError:
            raise self._not_ready() from None
        self._ready = True
        for process in self._processes:
            process.mesh_is_ready()
        self._changed()
        self._report("mesh", f"ready in {time.monotonic() - began_s:.1f} s")
        for process in self._processes:
            if process.failure is not None:
                self._report(process.program.name, f"left out for now: {process.failure}")
        self._report_access()
        await self._on_ready(self._url or "", models)
        workers = [p.program.name for p in self._processes if p.program.role is Role.WORKER]
        await serve_drained_marks(self._open_bus, self._state_dir, workers)

    def _report_access(self) -> None:
        """Report who reaches the mesh, and once where the first keys are."""
        guard = "with a key" if self._access.needs_keys else "without authentication"
        scheme = self._access.scheme
        for url in external_urls(self._options.host, self._public_port or 0, scheme):
            self._report("mesh", f"other machines reach it at {url}, {guard}")
        for warning in self._options.warnings:
            self._report("mesh", f"warning: {warning}")
        if new_keys := self._access.new_keys:
            self._report("mesh", new_keys)

    async def _open_bus(self) -> Bus:
        return await self._access.open_bus(self._broker.url, name="headrace up", replicas=None)

    def _reload_broker(self) -> None:
        for process in self._processes:
            if process.program is self._broker:
                process.reload()

    async def _start_all(self, group: asyncio.TaskGroup) -> list[str]:
        """Return the models that are served."""
        await self._until_listening(self._start(group, self._broker))
        workers: dict[str, list[SupervisedProcess]] = {}
        started: list[SupervisedProcess] = []
        late: list[SupervisedProcess] = []
        for plan in self._plans():
            service = Service(
                plan,
                nats_url=self._broker.url,
                ports_file=self._state_dir.ports / f"{plan.name}.json",
                more_flags=self._access.flags(plan.role),
            )
            process = self._start(group, service, is_optional=self._is_optional(plan))
            (late if self._access.is_late(plan.role) else started).append(process)
            if plan.model:
                workers.setdefault(plan.model, []).append(process)
        started.append(self._start(group, self._edge))
        async with asyncio.TaskGroup() as waits:
            for process in started:
                waits.create_task(self._until_ready(process))
            waits.create_task(self._remove_unlisted())
        served = _served_models(workers)
        async with asyncio.TaskGroup() as waits:
            waits.create_task(self._until_a_token_comes(served))
            for process in late:
                waits.create_task(self._until_ready(process, within_s=_LATE_S))
        return served

    async def _until_a_token_comes(self, models: Sequence[str]) -> None:
        if self._access.needs_keys:
            # Why not a request as below: no key need be here that may use the models.
            gateways = (p for p in self._processes if p.program.role is Role.GATEWAY)
            await wait_for_gateway_canary([p.record.ports.get("metrics") for p in gateways])
            self._report("mesh", "a token came through")
            return
        for model in models:
            await wait_for_canary(self._url or "", model, self._access.public_http)
            self._report("mesh", f"a token of {model} came through")

    def _plans(self) -> Iterator[ServicePlan]:
        home = self._state_dir
        for folder in (home.control, home.web):
            folder.mkdir(mode=0o700, exist_ok=True)
        return services(self._options, mesh_id=home.mesh_id, state_folder=str(home.folder))

    def _is_optional(self, plan: ServicePlan) -> bool:
        if self._access.is_late(plan.role):
            return True
        # Why: a model that cannot be loaded must not keep the others from being served.
        return bool(plan.model) and len(self._options.models) > 1

    async def _remove_unlisted(self) -> None:
        """Remove the models that an earlier mesh of this directory had and this one has not."""
        listed = [model.name for model in self._options.models]
        bus = await self._open_bus()
        try:
            for model in await remove_unlisted(bus, self._state_dir.mesh_id, listed):
                self._report("mesh", f"{model} is removed: it is no longer listed")
        except BusError as error:
            # Why not raised: the model only stays configured until it can be removed.
            self._report("mesh", f"models of an earlier mesh may be listed: {error}")
        finally:
            await bus.close()

    def _start(
        self, group: asyncio.TaskGroup, program: Program, *, is_optional: bool = False
    ) -> SupervisedProcess:
        process = SupervisedProcess(
            program,
            self._state_dir,
            on_change=self._changed,
            report=self._report,
            is_optional=is_optional,
        )
        self._processes.append(process)
        self._report(program.name, "starts")
        group.create_task(process.run())
        monitor = LivenessMonitor(process, self._probe(program), on_probe=self._write_changes)
        group.create_task(monitor.run())
        return process

    def _probe(self, program: Program) -> Probe:
        silence_s = self._options.replace_after_s or None
        match program.role:
            case Role.NATS:
                folder, open_bus = self._state_dir.broker, self._access.open_bus
                return BrokerProbe(folder, silence_s=silence_s, open_bus=open_bus)
            case Role.ENVOY:
                return HttpProbe("admin", "/ready", silence_s=silence_s, must_be_ok=False)
            case _:
                return HttpProbe("metrics", "/healthz", silence_s=silence_s, must_be_ok=True)

    async def _until_listening(self, process: SupervisedProcess) -> None:
        try:
            async with asyncio.timeout(_LISTEN_TIMEOUT_S):
                await process.listening.wait()
        except TimeoutError:
            fact = f"does not listen after {_LISTEN_TIMEOUT_S:g} s"
            raise ProcessFailed(process.program.name, fact, process.log) from None
        self._report(process.program.name, "listens")

    async def _until_ready(
        self, process: SupervisedProcess, *, within_s: float = float("inf")
    ) -> None:
        """Wait until a process is ready or may be left out; report how far a worker is."""
        program = process.program
        began_s = reported_s = time.monotonic()
        reported = ""
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            while True:
                why = await not_ready_reason(http, health_url(program.role, process.record.ports))
                if why is None:
                    break
                if process.failure is not None or time.monotonic() - began_s > within_s:
                    return
                # Why workers alone: what the others wait for is a worker.
                is_news = program.role is Role.WORKER and why not in ("", reported)
                if is_news and time.monotonic() - reported_s >= _REPORT_EVERY_S:
                    self._report(program.name, why)
                    reported_s, reported = time.monotonic(), why
                await asyncio.sleep(_POLL_S)
        self._report(program.name, f"ready in {time.monotonic() - began_s:.1f} s")

    def _not_ready(self) -> ProcessFailed:
        """Blame the first that does not listen, or else a worker, which loads the longest."""
        silent = [p for p in self._processes if not p.listening.is_set()]
        workers = [p for p in self._processes if p.program.role is Role.WORKER]
        culprit = (silent or workers or self._processes)[0]
        fact = f"is not ready after {self._options.ready_within_s:g} s"
        return ProcessFailed(culprit.program.name, fact, culprit.log)

    @property
    def _public_port(self) -> int | None:
        """None while Envoy does not listen."""
        ports = (p.record.ports for p in self._processes if p.program is self._edge)
        return next((each["http"] for each in ports if each), None)

    @property
    def _url(self) -> str | None:
        port = self._public_port
        host = connect_host(self._options.host)
        scheme = self._access.scheme
        return None if port is None else f"{scheme}://{join_host_port(host, port)}"

    def _changed(self) -> None:
        self._is_written = False
        self._write_changes()

    def _write_changes(self) -> None:
        """Write Envoy's endpoints and the record if they have changed.

        A full disk must not end the mesh: the files stay as they were and are written later.
        """
        if self._is_written:
            return
        try:
            self._edge.set_gateways(self._addresses(Role.GATEWAY))
            self._edge.set_controls(self._addresses(Role.CONTROL))
            self._edge.set_webs(self._addresses(Role.WEB, "http"))
            self._state_dir.write_record(self._record())
        except OSError as error:
            if not self._has_reported_disk:
                self._report("mesh", f"its files cannot be written: {error}")
            self._has_reported_disk = True
        else:
            self._is_written, self._has_reported_disk = True, False

    def _addresses(self, role: Role, port: str = "grpc") -> list[tuple[str, int]]:
        return [
            (LOOPBACK, process.record.ports[port])
            for process in self._processes
            if process.program.role is role and port in process.record.ports
        ]

    def _record(self) -> MeshRecord:
        return MeshRecord(
            supervisor_pid=os.getpid(),
            url=self._url,
            ready=self._ready,
            models=[model.name for model in self._options.models],
            processes=[process.record for process in self._processes],
            stops_within_s=mesh_stop_timeout_s(self._options.settings),
        )

    async def _drain(self) -> None:
        self._report("mesh", "drains; Ctrl-C again kills it")
        for role in STOP_ORDER:
            deadline_s = stop_timeout_s(role, self._options.settings)
            async with asyncio.TaskGroup() as group:
                for process in self._processes:
                    if process.program.role is role:
                        group.create_task(self._stop(process, deadline_s))

    async def _stop(self, process: SupervisedProcess, deadline_s: float) -> None:
        in_time = await process.stop(deadline_s=deadline_s)
        fact = "has ended" if in_time else f"had not ended after {deadline_s:g} s and was killed"
        self._report(process.program.name, fact)


def _served_models(workers: Mapping[str, Sequence[SupervisedProcess]]) -> list[str]:
    """Return the models with a worker that started; raise ProcessFailed if there is none."""
    found = [model for model, each in workers.items() if any(p.failure is None for p in each)]
    failures = [process.failure for each in workers.values() for process in each]
    if not found and failures and failures[0] is not None:
        raise failures[0]
    return found


async def _first_of(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Return when the event is set or the task has ended."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
