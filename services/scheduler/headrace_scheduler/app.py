"""The scheduler process: connects to the bus, serves until a signal, then drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import uuid

from headrace.bus import BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.metrics_server import MetricsServer
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.keeper.election import KeeperElection
from headrace_scheduler.runtime.service import Service

log = logging.getLogger(__name__)

YOUNG_OBJECTS = 20_000
"""Objects that are made before the garbage collector looks for cycles; Python's default is 700.
The machine's objects are in no cycles, and looking through them with nearly every event took up to
a tenth of the CPU where 100,000 requests wait."""


async def run(settings: SchedulerSettings) -> int:
    """Serve until SIGTERM or SIGINT; then release the leases.

    Returns:
        The exit status.
    """
    logs.configure(service="scheduler", name=settings.name, level=settings.log_level)
    export_expiry(settings.tls)
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        bus = await connect(
            settings.nats_url,
            name=f"scheduler {settings.name}",
            replicas=settings.nats_replicas,
            tls=settings.tls,
            credentials_file=settings.nats_credentials_file,
        )
    except BusUnavailable as error:
        log.error("scheduler.no_bus", extra={"why": str(error)})
        return 1
    # Why not before: until there is something to release, a signal ends the process at once.
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    scheduler_id = f"{settings.name}-{uuid.uuid4().hex[:12]}"
    service = Service(scheduler_id, bus, settings, SystemClock())
    keeper = KeeperElection(scheduler_id, bus, settings, SystemClock())
    with MetricsServer(
        settings.host, settings.metrics_port, why_not_ready=lambda: service.why_not_ready
    ) as metrics_server:
        write_ports(settings, {"metrics": metrics_server.port})
        await serve_drain(bus, settings.name, lambda _: stop.set())
        log.info("scheduler.started", extra={"scheduler_id": scheduler_id})
        try:
            await _serve(service, keeper, stop, metrics_server)
        finally:
            await bus.close()
    log.info("scheduler.stopped")
    return 0


async def _serve(
    service: Service, keeper: KeeperElection, stop: asyncio.Event, metrics_server: MetricsServer
) -> None:
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(service.run())
        keeping = tasks.create_task(keeper.run())
        beating = tasks.create_task(metrics_server.beat())
        await stop.wait()
        # Why first: another process can keep the quotas while this one drains.
        keeping.cancel()
        await service.drain()
        serving.cancel()
        beating.cancel()
