"""The control process: the one place that names concrete classes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from headrace.bus import Bus, BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.rpc.malformed import RejectMalformed
from headrace.rpc.roles import EDGE_ROLES
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.metrics_server import MetricsServer
from headrace_control.api.calls import CallInterceptor
from headrace_control.api.parts import Parts
from headrace_control.base.settings import ControlSettings

log = logging.getLogger(__name__)

SERVICES: tuple[
    tuple[Callable[[Any, grpc.aio.Server], None], Callable[[Parts], Any], ServiceDescriptor], ...
] = (
    # (keys_pb2_grpc.add_KeyServiceServicer_to_server, KeyService, _KEYS["KeyService"])
)
"""How each service of the API is added, made, and described."""


async def run(settings: ControlSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status.
    """
    logs.configure(service="control", name=settings.name, level=settings.log_level)
    export_expiry(settings.tls)
    control_id = f"{settings.name}-{uuid4().hex[:12]}"
    try:
        bus = await connect(
            settings.nats_url,
            name=control_id,
            replicas=settings.nats_replicas,
            tls=settings.tls,
            credentials_file=settings.nats_credentials_file,
        )
    except BusUnavailable as error:
        log.error("control.no_bus", extra={"why": str(error)})
        return 1
    try:
        await _Control(settings, bus).run()
    except OSError as error:
        log.error("control.cannot_start", extra={"error": str(error)})
        return 1
    finally:
        await bus.close()
    return 0


class _Control:
    def __init__(self, settings: ControlSettings, bus: Bus) -> None:
        self._settings, self._bus = settings, bus
        self._server = make_server(
            [RejectMalformed(), CallInterceptor(lambda: True)], tls=settings.tls, roles=EDGE_ROLES
        )
        self._grpc_port = bind(self._server, settings.host, settings.grpc_port, settings.tls)
        parts = Parts(settings, bus, SystemClock())
        for add, make, _ in SERVICES:
            add(make(parts), self._server)
        self._names = tuple(service.full_name for _, _, service in SERVICES)
        self._health = add_health_and_reflection(self._server, self._names)

    async def run(self) -> None:
        settings, stop = self._settings, asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        metrics = MetricsServer(settings.host, settings.metrics_port, why_not_ready=lambda: None)
        with metrics:
            beating = asyncio.create_task(metrics.beat())
            await self._server.start()
            ports = {"grpc": self._grpc_port, "metrics": metrics.port}
            write_ports(settings, ports)
            await serve_drain(self._bus, settings.name, lambda _: stop.set())
            await set_serving(self._health, self._names, serving=True)
            log.info("control.started", extra=ports)
            await stop.wait()
            beating.cancel()
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace=1.0)
        log.info("control.stopped")
