"""One machine's mesh: brings its processes up in order, keeps them up, takes them down in order."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import httpx
import psutil

from headrace.bus import BusError
from headrace.bus.jetstream import connect
from headrace.rpc.addresses import UNSPECIFIED, connect_host, join_host_port
from headrace.supervisor.health import health_url, not_ready_reason, wait_for_canary
from headrace.supervisor.liveness import LivenessMonitor
from headrace.supervisor.model_removal import remove_unlisted
from headrace.supervisor.plan import mesh_options
from headrace.supervisor.plan.mesh_options import LOOPBACK, MeshOptions, Role
from headrace.supervisor.plan.program import Program, Service
from headrace.supervisor.plan.stop_timeouts import STOP_ORDER, mesh_stop_timeout_s, stop_timeout_s
from headrace.supervisor.probes import BrokerProbe, HttpProbe, Probe
from headrace.supervisor.servers.envoy import Edge
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.state.failures import PortTaken, ProcessFailed
from headrace.supervisor.state.state_dir import MeshRecord, StateDir
from headrace.supervisor.supervised_process import SupervisedProcess

_LISTENING_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 2.0
"""How far a worker is with its model is told at most this often. What the others lack
meanwhile is a worker."""


@dataclass(frozen=True, slots=True)
class MeshCallbacks:
    """What the supervisor tells as it goes along."""

    progress: Callable[[str, str], None]
    """A process, or "mesh", and what has become of it."""
    ready: Callable[[str, Sequence[str]], Awaitable[None]]
    """The mesh is ready at this URL with these models; cancelled if it is to end meanwhile."""


class Mesh:
    """All processes of one mesh. `run` once; the state directory is held by the caller."""

    def __init__(self, options: MeshOptions, state_dir: StateDir, told: MeshCallbacks) -> None:
        self._options = options
        self._state_dir = state_dir
        self._told = told
        self._broker = Broker(state_dir.broker, sync_interval=options.sync_interval)
        self._edge = Edge(state_dir.edge, state_dir.logs, host=options.host, port=options.port)
        self._keepers: list[SupervisedProcess] = []
        self._ready = False
        self._gateways: list[tuple[str, int]] = []
        self._is_written, self._has_complained = True, False

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Bring the mesh up, keep it until `stop`, then drain it; `hurry` ends it at once.

        Raises:
            PortTaken: nothing was started.
            ExceptionGroup: of ProcessFailed; nothing is left running.
        """
        require_free_port(self._options.host, self._options.port)
        async with asyncio.TaskGroup() as group:
            life = group.create_task(self._live(group))
            await _either(stop, life)
            life.cancel()
            drain = group.create_task(self._drain())
            await _either(hurry, drain)
            for keeper in self._keepers:
                keeper.kill()

    async def _live(self, group: asyncio.TaskGroup) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._options.ready_within_s):
                models = await self._bring_up(group)
        except TimeoutError:
            raise self._not_ready() from None
        self._ready = True
        for keeper in self._keepers:
            keeper.mesh_is_ready()
        self._changed()
        self._told.progress("mesh", f"ready in {time.monotonic() - began_s:.1f} s")
        for keeper in self._keepers:
            if keeper.failure is not None:
                self._told.progress(keeper.program.name, f"left out for now: {keeper.failure}")
        for url in external_urls(self._options.host, self._public_port or 0):
            self._told.progress("mesh", f"other machines reach it at {url}, without authentication")
        await self._told.ready(self._url or "", models)
        await asyncio.Event().wait()

    async def _bring_up(self, group: asyncio.TaskGroup) -> list[str]:
        """Returns the models that are served."""
        nats = self._keep(group, self._broker)
        await self._listening(nats)
        workers: dict[str, list[SupervisedProcess]] = {}
        services: list[SupervisedProcess] = []
        for each in mesh_options.services(self._options, mesh_id=self._state_dir.mesh_id):
            # Why: where there are several models, one that cannot be loaded costs no other.
            is_optional = bool(each.model) and len(self._options.models) > 1
            services.append(self._keep(group, self._service(each), is_optional=is_optional))
            if each.model:
                workers.setdefault(each.model, []).append(services[-1])
        envoy = self._keep(group, self._edge)
        async with asyncio.TaskGroup() as waits:
            for keeper in (*services, envoy):
                waits.create_task(self._becomes_ready(keeper))
            waits.create_task(self._remove_unlisted())
        served = _with_a_worker(workers)
        for model in served:
            await wait_for_canary(self._url or "", model)
            self._told.progress("mesh", f"a token of {model} came through")
        return served

    async def _remove_unlisted(self) -> None:
        """Models of an earlier mesh of this directory that this one does not have."""
        listed = [model.name for model in self._options.models]
        bus = await connect(self._broker.url, name="headrace up", replicas=None)
        try:
            for model in await remove_unlisted(bus, self._state_dir.mesh_id, listed):
                self._told.progress("mesh", f"{model} is not configured any more")
        except BusError as error:
            # Not worth the mesh: it stays configured until it can be removed.
            self._told.progress("mesh", f"models of an earlier mesh may be listed: {error}")
        finally:
            await bus.close()

    def _service(self, each: mesh_options.ServicePlan) -> Service:
        ports_file = self._state_dir.ports / f"{each.name}.json"
        return Service(each, nats_url=self._broker.url, ports_file=ports_file)

    def _keep(
        self, group: asyncio.TaskGroup, program: Program, *, is_optional: bool = False
    ) -> SupervisedProcess:
        keeper = SupervisedProcess(
            program,
            self._state_dir,
            on_change=self._changed,
            report=self._told.progress,
            is_optional=is_optional,
        )
        self._keepers.append(keeper)
        self._told.progress(program.name, "starts")
        group.create_task(keeper.keep())
        group.create_task(
            LivenessMonitor(keeper, self._look_at(program), on_look=self._write_again).run()
        )
        return keeper

    def _look_at(self, program: Program) -> Probe:
        silence_s = self._options.replace_after_s or None
        match program.role:
            case Role.NATS:
                return BrokerProbe(self._state_dir.broker, silence_s=silence_s)
            case Role.ENVOY:
                return HttpProbe("admin", "/ready", silence_s=silence_s, must_be_ok=False)
            case _:
                return HttpProbe("metrics", "/healthz", silence_s=silence_s, must_be_ok=True)

    async def _listening(self, keeper: SupervisedProcess) -> None:
        try:
            async with asyncio.timeout(_LISTENING_WITHIN_S):
                await keeper.listening.wait()
        except TimeoutError:
            fact = f"does not listen after {_LISTENING_WITHIN_S:g} s"
            raise ProcessFailed(keeper.program.name, fact, keeper.log) from None
        self._told.progress(keeper.program.name, "listens")

    async def _becomes_ready(self, keeper: SupervisedProcess) -> None:
        began_s = time.monotonic()
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            told_s, told = began_s, ""
            while (why := await self._complaint(http, keeper)) is not None:
                if keeper.failure is not None:
                    return
                is_news = keeper.program.role is Role.WORKER and why not in ("", told)
                if is_news and time.monotonic() - told_s >= _TELL_EVERY_S:
                    self._told.progress(keeper.program.name, why)
                    told_s, told = time.monotonic(), why
                await asyncio.sleep(_LOOK_EVERY_S)
        self._told.progress(keeper.program.name, f"ready in {time.monotonic() - began_s:.1f} s")

    async def _complaint(self, http: httpx.AsyncClient, keeper: SupervisedProcess) -> str | None:
        return await not_ready_reason(http, health_url(keeper.program.role, keeper.ports))

    def _not_ready(self) -> ProcessFailed:
        """Blame the first that does not listen; where all do, a worker: it loads the longest."""
        silent = [k for k in self._keepers if not k.listening.is_set()]
        workers = [k for k in self._keepers if k.program.role is Role.WORKER]
        culprit = (silent or workers or self._keepers)[0]
        fact = f"is not ready after {self._options.ready_within_s:g} s"
        return ProcessFailed(culprit.program.name, fact, culprit.log)

    @property
    def _public_port(self) -> int | None:
        """None while Envoy does not listen."""
        ports = (keeper.ports for keeper in self._keepers if keeper.program is self._edge)
        return next((each["http"] for each in ports if each), None)

    @property
    def _url(self) -> str | None:
        port = self._public_port
        return (
            None
            if port is None
            else f"http://{join_host_port(connect_host(self._options.host), port)}"
        )

    def _changed(self) -> None:
        self._is_written = False
        self._write_again()

    def _write_again(self) -> None:
        """Write what has changed. A disk that takes nothing must not end the mesh: the files stay
        as they were, and are written when it takes something again."""
        if self._is_written:
            return
        gateways = [
            (LOOPBACK, keeper.ports["grpc"])
            for keeper in self._keepers
            if keeper.program.role is Role.GATEWAY and "grpc" in keeper.ports
        ]
        try:
            if gateways != self._gateways:
                self._edge.set_gateways(gateways)
                self._gateways = gateways
            self._publish()
        except OSError as error:
            if not self._has_complained:
                self._told.progress("mesh", f"its files cannot be written: {error}")
            self._has_complained = True
        else:
            self._is_written, self._has_complained = True, False

    def _publish(self) -> None:
        record = MeshRecord(
            supervisor_pid=os.getpid(),
            url=self._url,
            ready=self._ready,
            models=[model.name for model in self._options.models],
            processes=[keeper.record for keeper in self._keepers],
            stops_within_s=mesh_stop_timeout_s(self._options.settings),
        )
        self._state_dir.write_record(record)

    async def _drain(self) -> None:
        self._told.progress("mesh", "drains; again to end it at once")
        for role in STOP_ORDER:
            deadline_s = stop_timeout_s(role, self._options.settings)
            async with asyncio.TaskGroup() as group:
                for keeper in self._keepers:
                    if keeper.program.role is role:
                        group.create_task(self._end(keeper, deadline_s))

    async def _end(self, keeper: SupervisedProcess, deadline_s: float) -> None:
        in_time = await keeper.stop(deadline_s=deadline_s)
        fact = "has ended" if in_time else f"had not ended after {deadline_s:g} s and was killed"
        self._told.progress(keeper.program.name, fact)


def _with_a_worker(workers: Mapping[str, Sequence[SupervisedProcess]]) -> list[str]:
    """Models that a worker could be brought up for; raises ProcessFailed where there is none."""
    found = [m for m, keepers in workers.items() if any(k.failure is None for k in keepers)]
    failures = [keeper.failure for keepers in workers.values() for keeper in keepers]
    if not found and failures and failures[0] is not None:
        raise failures[0]
    return found


def require_free_port(host: str, port: int) -> None:
    """Raises PortTaken. Envoy would find out too, but say it less plainly."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # As Envoy listens: on :: for IPv6 alone.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        way_out = "take another with --port, or a free one with --port 0"
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            way_out = "this machine does not have that address; take another with --host"
        raise PortTaken(
            f"cannot listen on {join_host_port(host, port)}: {error.strerror or error}; {way_out}"
        ) from error


def external_urls(host: str, port: int) -> list[str]:
    """URLs that other machines may use where the mesh listens on every address; else none."""
    if host not in UNSPECIFIED:
        return []
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    found = (address for every in psutil.net_if_addrs().values() for address in every)
    return [
        f"http://{join_host_port(address.address, port)}"
        for address in found
        if address.family == family
        and "%" not in address.address
        and not ip_address(address.address).is_loopback
    ]


async def _either(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Return when one of the two has come."""
    coming = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({coming, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        coming.cancel()
