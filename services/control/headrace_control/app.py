"""The control process: the one place that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import uuid4

import grpc

from headrace.auth.check.access import Access
from headrace.auth.networks import parse_networks
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import DEFAULT_TENANT
from headrace.bus import Bus, BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.bus.subjects import ACCESS_REPORTS, OWN_USAGE
from headrace.clock import SystemClock
from headrace.credentials.secret_files import SecretFile
from headrace.errors import ControlUnavailable, RequestError
from headrace.extras import MissingExtra
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.malformed import RejectMalformed
from headrace.rpc.roles import EDGE_ROLES
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.rpc.tls import mesh_security
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.condition_log import ConditionLog
from headrace.telemetry.metrics_server import MetricsServer
from headrace_control.api.calls import CallInterceptor, raise_rejected
from headrace_control.api.http.replies import send_error
from headrace_control.api.parts import Parts
from headrace_control.api.rest_calls import RestCallInterceptor
from headrace_control.base.records import SYSTEM
from headrace_control.base.settings import ControlSettings
from headrace_control.batches.owners import Owners
from headrace_control.batches.work import BatchWork
from headrace_control.files.file_store import FileStore
from headrace_control.files.sweep import FileSweep
from headrace_control.gateways.gateway_rows import GatewayRows
from headrace_control.gateways.registry import Gateways
from headrace_control.metering.month_closing import close_months
from headrace_control.metering.old_rows import delete_old_rows
from headrace_control.metering.own_usage import OwnUsage
from headrace_control.metering.usage_consumer import UsageConsumer
from headrace_control.operations.fleet import FleetReports
from headrace_control.publishing.access_reports import AccessReports, SettledPepper
from headrace_control.publishing.election import Election
from headrace_control.publishing.first_keys import make_first_keys
from headrace_control.publishing.known_peppers import require_known_peppers
from headrace_control.publishing.publisher import Publisher
from headrace_control.services import SERVICES
from headrace_control.sign_in.expired_sessions import remove_expired_sessions
from headrace_control.store import Store
from headrace_control.webhooks.deliverer import Deliverer
from headrace_control.webhooks.sealing import SecretSealer
from headrace_control.webhooks.sender import WebhookSender

log = logging.getLogger(__name__)

_WINDOW_BYTES = 256 * 1024
"""Of a file that is uploaded, what is read ahead of what the broker has stored."""
_RETRY_S = 0.5
_ACCESS_POLL_S = 0.01
_STOP_S = 5.0


async def run(settings: ControlSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status.
    """
    logs.configure(service="control", name=settings.name, level=settings.log_level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    export_expiry(settings.tls)
    process = _Process(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = MetricsServer(
        settings.host,
        settings.metrics_port,
        why_not_ready=lambda: process.why_not_ready,
        details=lambda: process.details,
    )
    with metrics:
        beating = asyncio.create_task(metrics.beat())
        serving = asyncio.create_task(process.run(metrics.port, stop.set))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await process.drain()
        for task in (serving, stopping, beating):
            task.cancel()
        await asyncio.wait({serving, stopping, beating}, timeout=_STOP_S)
    if serving.done() and not serving.cancelled() and (error := serving.exception()) is not None:
        log.error("control.ended", extra={"error": str(error)}, exc_info=_unforeseen(error))
        return 1
    log.info("control.stopped")
    return 0


def _unforeseen(error: BaseException) -> BaseException | None:
    """Return the error if its text alone does not explain it to operators."""
    foreseen = (OSError, ValueError, RequestError, MissingExtra)
    return None if isinstance(error, foreseen) else error


class _Process:
    """Waits for what it needs, and then serves."""

    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings
        self._missing = "the broker"
        self._control: _Control | None = None

    async def run(self, metrics_port: int, stop: Callable[[], None]) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the port is in use.
            HeadraceError: this version cannot use the database.
        """
        settings = self._settings
        bus = await _connected(settings)
        try:
            self._missing = "the database"
            store = await _opened(settings)
            try:
                self._control = control = _Control(settings, bus, store)
                await control.start()
                ports = {"grpc": control.grpc_port, "metrics": metrics_port}
                write_ports(settings, ports)
                await serve_drain(bus, settings.name, lambda _: stop())
                log.info("control.started", extra=ports)
                async with control.access.running(), control.fleet.running():
                    await control.election.run(control.work)
            finally:
                await store.close()
        finally:
            await bus.close()

    async def drain(self) -> None:
        if self._control is not None:
            await self._control.drain()

    @property
    def why_not_ready(self) -> str | None:
        if self._control is None:
            return f"it waits for {self._missing}"
        election = self._control.election
        if election.is_active or election.knows_other:
            return self._control.access.not_ready_reason()
        return "neither this process nor another one is known to be active"

    @property
    def details(self) -> tuple[str, ...]:
        if self._control is None:
            return ()
        return ("active" if self._control.election.is_active else "stands by",)


class _Control:
    def __init__(self, settings: ControlSettings, bus: Bus, store: Store) -> None:
        self._settings, self._bus, self._store = settings, bus, store
        self._clock = clock = SystemClock()
        peppers, webhooks = settings.peppers_file, settings.webhook_keys_file
        control_id = f"{settings.name}-{uuid4().hex[:12]}"
        self.access = Access(settings, bus, clock, control_id, reject=raise_rejected)
        self.fleet = FleetReports(bus, clock)
        files = FileStore(store.files, bus)
        self._sweep = FileSweep(store.files, bus, files)
        self._gateways = Gateways(bus, clock, self._connect, settings.delivery_secret)
        self._batches = self._batch_work(files)
        self._parts = Parts(
            settings,
            bus,
            clock,
            store,
            None if peppers is None else SecretFile(peppers, Peppers.parse),
            self.access,
            self.fleet.shown,
            None if webhooks is None else SecretFile(webhooks, SecretSealer.parse),
            files,
            self._batches.wake,
        )
        self.election = Election(bus, control_id, settings, clock)
        is_active = lambda: self.election.is_active  # noqa: E731
        self._publisher = Publisher(
            bus, store.outbox, clock, stamp_s=settings.stamp_s, is_active=is_active
        )
        pepper = SettledPepper(lambda: self._parts.pepper_id, clock, settings.pepper_settle_s)
        self._reports = AccessReports(store.uses, is_active=is_active, pepper_id=pepper.pepper_id)
        calls = CallInterceptor(
            is_active=is_active,
            settled=self._publisher.settled,
            settle_s=settings.publish_wait_s,
            send_error=send_error,
        )
        interceptors = [RejectMalformed(), calls, self.access.interceptor, RestCallInterceptor()]
        self._server = make_server(
            interceptors, tls=settings.tls, roles=EDGE_ROLES, window_bytes=_WINDOW_BYTES
        )
        self.grpc_port = bind(self._server, settings.host, settings.grpc_port, settings.tls)
        for add, make, _ in SERVICES:
            add(make(self._parts), self._server)
        self._names = tuple(service.full_name for _, _, service in SERVICES)
        self._health = add_health_and_reflection(self._server, self._names)

    async def start(self) -> None:
        """Serve, as standby at first.

        Raises:
            UnknownPeppers: no key of the database could be used.
        """
        if self._parts.peppers is not None:
            await require_known_peppers(self._store.keys, self._parts.peppers.value())
        # Why: the servicer says that the server as a whole serves, until that is set.
        await set_serving(self._health, self._names, serving=False)
        await self._server.start()

    async def work(self) -> None:
        """What the active process does, until cancelled."""
        folder = self._settings.bootstrap_keys_dir
        if self._settings.auth == "keys" and folder is not None:
            await make_first_keys(self._store.keys, folder, self._parts.digest)
        if self._settings.auth == "none":
            # Whose files and batches those of callers without keys are.
            await self._store.tenants.ensure(DEFAULT_TENANT, by=SYSTEM)
        reports = await self._bus.serve(ACCESS_REPORTS, self._reports.answer)
        usage = await self._bus.serve(OWN_USAGE, OwnUsage(self._store.usage_sums).answer)
        try:
            async with self._gateways.following(), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._publisher.run())
                tasks.create_task(self._serve())
                tasks.create_task(remove_expired_sessions(self._store.sessions))
                kept = timedelta(days=self._settings.usage_rows_days)
                old_rows = self._store.old_usage_rows
                tasks.create_task(delete_old_rows(old_rows, kept, self._clock))
                consumer = UsageConsumer(self._bus, self._store.usage, self._clock)
                tasks.create_task(consumer.run())
                tasks.create_task(self._close_months(consumer.caught_up))
                if self._parts.webhook_keys is not None:
                    tasks.create_task(self._deliver_webhooks(self._parts.webhook_keys))
                tasks.create_task(self._sweep.run())
                tasks.create_task(self._batches.run())
        finally:
            await set_serving(self._health, self._names, serving=False)
            await reports.close()
            await usage.close()

    def _batch_work(self, files: FileStore) -> BatchWork:
        rows = GatewayRows(self._gateways)
        why_not = Owners(self.access, self._clock).why_not
        limits = replace(self._settings.batch_limits, files=self._settings.file_limits)
        batches = self._store.batches
        return BatchWork(batches, files, rows, self._clock, limits, why_not=why_not)

    def _connect(self, address: str) -> grpc.aio.Channel:
        """Return a channel to a gateway's services for the mesh."""
        security = mesh_security(self._settings.tls, "gateway")
        return aio_channel(address, pings=MESH_PINGS, security=security)

    async def _deliver_webhooks(self, keys: SecretFile[SecretSealer]) -> None:
        await self._store.webhook_endpoints.seal_again(keys.value().seal_again)
        networks = parse_networks(self._settings.webhook_networks)
        async with WebhookSender(networks) as sender:
            deliveries = self._store.webhook_deliveries
            await Deliverer(deliveries, sender, keys.value, self._store.now).run()

    async def _close_months(self, is_recorded: asyncio.Event) -> None:
        if (days := self._settings.statement_close_days) is None:
            return
        # Why not before: what the broker still holds would be corrections of the next month.
        await is_recorded.wait()
        by_key = self._settings.statement_lines_by_key
        await close_months(self._store.statements, timedelta(days=days), by_key=by_key)

    async def _serve(self) -> None:
        # Why not without a bound: what is stored can be administered while publishing fails.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.publish_wait_s):
                await self._publisher.compared.wait()
                while self.access.not_ready_reason() is not None:
                    await asyncio.sleep(_ACCESS_POLL_S)
        await set_serving(self._health, self._names, serving=True)

    async def drain(self) -> None:
        # Health first: Envoy must have noticed before the first refusal.
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace=1.0)


async def _connected(settings: ControlSettings) -> Bus:
    """Return a connection to the broker, however long that takes; `connect` logs the wait."""
    while True:
        try:
            return await connect(
                settings.nats_url,
                name=f"control {settings.name}",
                replicas=settings.nats_replicas,
                tls=settings.tls,
                credentials_file=settings.nats_credentials_file,
            )
        except BusUnavailable as error:
            log.warning("control.waits_for_broker", extra={"why": str(error)})
            await asyncio.sleep(_RETRY_S)


async def _opened(settings: ControlSettings) -> Store:
    """Return the store, however long the database is away."""
    waiting = ConditionLog(log, active="control.waits_for_database", cleared="control.database")
    open_store = partial(Store.open, settings.database(), upgrade=settings.database_upgrade)
    while True:
        try:
            store = await open_store()
        except ControlUnavailable as error:
            waiting.active(time.monotonic(), why=str(error.__cause__))
            await asyncio.sleep(_RETRY_S)
            continue
        waiting.cleared(time.monotonic())
        return store
