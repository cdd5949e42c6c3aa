"""The web process: the one place that names concrete classes."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import grpc

from headrace.auth.check.access import Access
from headrace.bus import Bus, BusError, BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.credentials.secret_files import InsecureSecretFile
from headrace.errors import ControlUnavailable, HeadraceError
from headrace.extras import MissingExtra
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.tls import mesh_security
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.condition_log import ConditionLog
from headrace.telemetry.metrics_server import MetricsServer
from headrace_web.base.settings import WebSettings
from headrace_web.chat.answering import Answering
from headrace_web.http.api.calls import Parts
from headrace_web.http.assets import Assets
from headrace_web.http.server import make_app, serving
from headrace_web.mesh.gateways import Gateways
from headrace_web.mesh.requests import MeshRequests
from headrace_web.store import Store

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_STOP_S = 5.0
_SWEEP_S = 3600.0
_DAY_MS = 24 * 3600 * 1000


async def run(settings: WebSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status.
    """
    logs.configure(service="web", name=settings.name, level=settings.log_level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    export_expiry(settings.tls)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    web = _Web(settings)
    side = MetricsServer(settings.host, settings.metrics_port, why_not_ready=lambda: web.missing)
    with side:
        beating = asyncio.create_task(side.beat())
        serving = asyncio.create_task(web.run(side.port, stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # Whatever it waits for, the broker too.
        for task in (serving, stopping, beating):
            task.cancel()
        await asyncio.wait({serving, stopping, beating}, timeout=_STOP_S)
    if serving.done() and not serving.cancelled() and (error := serving.exception()) is not None:
        foreseen = (OSError, HeadraceError, BusError, MissingExtra, InsecureSecretFile)
        shown = None if isinstance(error, foreseen) else error
        log.error("web.ended", extra={"error": str(error)}, exc_info=shown)
        return 1
    log.info("web.stopped")
    return 0


class _Web:
    """Waits for what it needs, and then serves."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings
        self.missing: str | None = "it waits for the broker"
        """Why it is not ready; None if it is."""

    async def run(self, metrics_port: int, stop: asyncio.Event) -> None:
        """Serve until `stop`.

        Raises:
            OSError: the port is in use.
            RequestError: this version cannot use the database.
        """
        settings, clock = self._settings, SystemClock()
        async with AsyncExitStack() as stack:
            listener = _bound(settings)
            stack.callback(listener.close)
            bus = await _connected(settings)
            stack.push_async_callback(bus.close)
            self.missing = "it waits for the database"
            store = await _opened(settings)
            stack.push_async_callback(store.close)
            access = Access(settings, bus, clock, f"{settings.name}-{uuid4().hex[:12]}")
            gateways = Gateways(bus, clock, partial(_channel, settings))
            await stack.enter_async_context(access.running())
            await stack.enter_async_context(gateways.following())
            mesh = MeshRequests(gateways, settings.delivery_secret)
            answering = Answering(store, mesh, clock, patience_s=settings.submit_patience_s)
            await stack.enter_async_context(answering.running())
            app = make_app(Parts(settings, access, store, answering), Assets())
            await stack.enter_async_context(serving(app, listener, settings.tls, on_end=stop.set))
            ports = {"http": listener.getsockname()[1], "metrics": metrics_port}
            write_ports(settings, ports)
            await serve_drain(bus, settings.name, lambda _: stop.set())
            sweeping = asyncio.create_task(self._sweep(store, clock))
            stack.callback(sweeping.cancel)
            self.missing = None
            log.info("web.started", extra=ports)
            await stop.wait()
            self.missing = "it stops"

    async def _sweep(self, store: Store, clock: SystemClock) -> None:
        """Remove what was deleted so long ago that it cannot be restored, again and again."""
        while True:
            before_ms = int(clock.unix_s() * 1000) - self._settings.deleted_days * _DAY_MS
            try:
                await store.conversations.remove_deleted(before_ms)
            except HeadraceError as error:
                log.warning("sweep.failed", extra={"error": str(error)})
            await asyncio.sleep(_SWEEP_S)


def _bound(settings: WebSettings) -> socket.socket:
    return socket.create_server(
        (settings.host, settings.http_port),
        family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
        backlog=1024,
    )


def _channel(settings: WebSettings, address: str) -> grpc.aio.Channel:
    """Return a channel to a gateway's services for the mesh."""
    return aio_channel(address, pings=MESH_PINGS, security=mesh_security(settings.tls, "gateway"))


async def _connected(settings: WebSettings) -> Bus:
    """Return a connection to the broker, however long that takes; `connect` logs the wait."""
    while True:
        try:
            return await connect(
                settings.nats_url,
                name=f"web {settings.name}",
                replicas=settings.nats_replicas,
                tls=settings.tls,
                credentials_file=settings.nats_credentials_file,
            )
        except BusUnavailable as error:
            log.warning("web.waits_for_broker", extra={"why": str(error)})
            await asyncio.sleep(_RETRY_S)


async def _opened(settings: WebSettings) -> Store:
    """Return the store, however long the database is away."""
    waiting = ConditionLog(log, active="web.waits_for_database", cleared="web.database")
    while True:
        try:
            store = await Store.open(settings.database(), upgrade=True)
        except ControlUnavailable as error:
            waiting.active(time.monotonic(), why=str(error.__cause__))
            await asyncio.sleep(_RETRY_S)
            continue
        waiting.cleared(time.monotonic())
        return store
