"""The worker process: the only module here that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
from collections.abc import Callable

from headrace.bus import Bus, BusUnavailable, subjects
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.settings import write_ports
from headrace.telemetry import logs
from headrace.telemetry.side_port import SidePort
from headrace_worker.announcing import Announcement
from headrace_worker.engine.loaded import LoadedModel, ModelLoadFailed
from headrace_worker.intake import Intake
from headrace_worker.metrics import WorkerMetrics
from headrace_worker.model_card import model_card, tokenizer_bundle
from headrace_worker.models import load_model
from headrace_worker.reporter import Reporter
from headrace_worker.settings import WorkerSettings
from headrace_worker.worker import Worker

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""At the end, time for gateways to acknowledge and for the leader to take what was parked."""
POLL_S = 0.02


class EngineDied(Exception):
    """The engine's thread ended; the process must be replaced."""


class WorkerApp:
    """One worker process from its start to its end."""

    def __init__(self, settings: WorkerSettings, bus: Bus, loaded: LoadedModel) -> None:
        self._settings, self._bus, self._loaded = settings, bus, loaded
        self._clock = SystemClock()
        self._worker_id = f"{settings.name}-{secrets.token_hex(4)}"
        self._stop = asyncio.Event()
        self._death: BaseException | None = None
        self._worker: Worker | None = None
        self._metrics = WorkerMetrics(settings.model_name, loaded.engine.facts.name)
        self.ready = False

    def announcement(self) -> Announcement:
        bundle = tokenizer_bundle(self._loaded.tokenizer)
        now_unix_s = self._clock.unix_s()
        card = model_card(self._settings.model_name, self._loaded, bundle, now_unix_s=now_unix_s)
        return Announcement(self._bus, card, bundle)

    async def run(self, on_beat: Callable[[], None]) -> int:
        """Serve until SIGTERM or SIGINT, then drain; 0, or 1 if the engine died.

        `on_beat` is called for as long as the event loop runs.
        """
        announcement = self.announcement()
        await announcement.publish()
        card = announcement.card
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        async with asyncio.TaskGroup() as group:
            worker = self._worker = self._make_worker(group)
            intake = Intake(worker, card, self._metrics)
            reporter = Reporter(
                self._bus,
                worker,
                intake,
                card,
                self._metrics,
                name=self._settings.name,
                interval_s=self._settings.report_interval_s,
            )
            self._reporter = reporter
            worker.pump.start()
            await self._bus.serve(subjects.dispatch(self._worker_id), intake.dispatch)
            await self._bus.serve(subjects.worker_cancel(self._worker_id), intake.cancel)
            tasks = [
                group.create_task(reporter.run(on_beat)),
                group.create_task(reporter.run_parking()),
                group.create_task(announcement.repeat()),
            ]
            self.ready = True
            log.info("worker.ready", extra={"worker_id": self._worker_id, "model": card.model})
            await self._stop.wait()
            self.ready = False
            await self._drain(worker, intake, reporter)
            for task in tasks:
                task.cancel()
            # Why only now: a report after the farewell would bring the worker back to life.
            await reporter.report(leaving=True)
            worker.close()
        return 0 if self._death is None else 1

    @property
    def held_sequences(self) -> int:
        """Running, or ended and not yet acknowledged."""
        return len(self._worker.assignments) if self._worker else 0

    def check_integrity(self) -> None:
        """Raise AssertionError if anything is held for nobody."""
        if self._worker:
            self._worker.check_integrity()

    def _make_worker(self, group: asyncio.TaskGroup) -> Worker:
        return Worker(
            self._worker_id,
            self._loaded.engine,
            clock=self._clock,
            metrics=self._metrics,
            group=group,
            orphan_grace_s=self._settings.orphan_grace_s,
            on_release=lambda: self._reporter.release(),
            on_park=lambda points: self._reporter.park(points),
            on_death=self._die,
        )

    def stop(self) -> None:
        """Let `run` drain and return."""
        self._stop.set()

    def _die(self, error: BaseException) -> None:
        self._death = error
        self._stop.set()

    async def _drain(self, worker: Worker, intake: Intake, reporter: Reporter) -> None:
        """Finish, then park. A dead engine parks at once."""
        intake.draining = True
        await reporter.report()
        log.info("worker.draining", extra={"running": worker.assignments.running_sequences})
        await self._until(
            lambda: worker.assignments.running_sequences == 0 or self._death is not None,
            self._settings.drain_s,
        )
        reporter.park(worker.park_all(ParkCause.PARK_CAUSE_DRAIN))
        await self._until(lambda: worker.idle and not reporter.has_parked, SETTLE_S)
        if worker.pump.alive:
            await worker.pump.stop()
        log.info("worker.drained", extra={"held": len(worker.assignments)})

    async def _until(self, is_true: Callable[[], bool], within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not is_true():
                    await asyncio.sleep(POLL_S)


async def run(settings: WorkerSettings) -> int:
    """Run a worker process; returns its exit status."""
    logs.configure(service="worker", name=settings.name, level=settings.log_level)
    try:
        loaded, bus = await asyncio.gather(
            asyncio.to_thread(load_model, settings),
            connect(settings.nats_url, name=f"worker {settings.name}"),
        )
    except (ModelLoadFailed, BusUnavailable) as error:
        log.critical("worker.not_started", extra={"why": str(error)})
        # What is asked for cannot be: as bad settings are, and starting again does not help.
        return 2 if isinstance(error, ModelLoadFailed) else 1
    # Why: with torch loaded, a full collection takes 0.4 s, in which nothing steps or reports.
    gc.collect()
    gc.freeze()
    app = WorkerApp(settings, bus, loaded)
    try:
        with SidePort(
            settings.host, settings.metrics_port, is_ready=lambda: app.ready and bus.connected
        ) as side_port:
            write_ports(settings, {"metrics": side_port.port})
            return await app.run(side_port.beat)
    except BusUnavailable as error:
        log.critical("worker.not_announced", extra={"why": str(error)})
        return 1
    finally:
        await bus.close()
