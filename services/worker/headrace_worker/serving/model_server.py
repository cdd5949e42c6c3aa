"""Serves one loaded model under a worker id of its own, from its announcement until it leaves.

To the mesh each is a worker. A process that loads another model serves the two side by
side for a while; that they share a process makes no difference to the mesh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.bus import Bus, Subscription, subjects
from headrace.clock import SystemClock
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.dispatch.dispatch_handler import DispatchHandler
from headrace_worker.dispatch.prefix_reports import PrefixReporter
from headrace_worker.dispatch.reporter import Reporter
from headrace_worker.dispatch.step_watchdog import StepWatchdog
from headrace_worker.engine.base.loaded_model import LoadedModel
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread
from headrace_worker.runtime.metrics import WorkerMetrics
from headrace_worker.runtime.worker import Worker
from headrace_worker.serving.adapter_folder import AdapterFolder
from headrace_worker.serving.card_publisher import CardPublisher
from headrace_worker.serving.model_card import configured_card, tokenizer_bundle

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""Time for gateways to acknowledge and for the leader to take resume points after a drain."""
POLL_S = 0.02


class ModelServer:
    """One served model: `begin`, then `drain`, then `leave`.

    Args:
        group: owns all of its tasks.
        on_death: called if the engine itself broke.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        bus: Bus,
        loaded: LoadedModel,
        *,
        group: asyncio.TaskGroup,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._settings, self._bus, self._group = settings, bus, group
        self._on_death = on_death
        self._clock = SystemClock()
        self._dead = False
        self._stopped_waiting = False
        self._tasks: list[asyncio.Task[None]] = []
        self._announcing: list[asyncio.Task[None]] = []
        """Tasks that bring requests here: they publish the card, adapters and prefixes."""
        self._subscriptions: list[Subscription] = []
        bundle = tokenizer_bundle(loaded.tokenizer)
        now_unix_s = self._clock.unix_s()
        card = self.card = configured_card(settings, loaded, bundle, now_unix_s=now_unix_s)
        self._card_publisher = CardPublisher(bus, card, bundle)
        max_adapters = settings.max_adapters if loaded.adapters else 0
        metrics = WorkerMetrics(
            settings.model_name, loaded.engine.facts.name, max_adapters=max_adapters
        )
        folder, takes = settings.adapters_dir, loaded.adapters
        self._adapters = AdapterFolder(folder, takes, card) if folder and takes else None
        self.worker = self._make_worker(loaded, metrics)
        self.watchdog = StepWatchdog(
            self.worker,
            after_s=settings.step_stall_s,
            on_change=lambda: self._reporter.on_release(),
            on_death=self._die,
        )
        self._dispatch_handler = DispatchHandler(self.worker, card, self.watchdog)
        self._reporter = Reporter(
            bus, self.worker, self._dispatch_handler, card, self.watchdog, settings
        )
        self._prefixes: PrefixReporter | None = None
        limit = settings.prefix_report_blocks
        if loaded.cached_blocks is not None and limit:
            self._prefixes = PrefixReporter(
                bus, self.worker, card.model, loaded.cached_blocks, limit=limit
            )

    def _make_worker(self, loaded: LoadedModel, metrics: WorkerMetrics) -> Worker:
        return Worker(
            f"{self._settings.name}-{secrets.token_hex(4)}",
            loaded.engine,
            clock=self._clock,
            metrics=metrics,
            group=self._group,
            orphan_grace_s=self._settings.orphan_grace_s,
            delivery_secret=self._settings.delivery_secret,
            tls=self._settings.tls,
            on_release=lambda: self._reporter.on_release(),
            on_park=lambda point: self._reporter.resume_points.add(point),
            on_death=self._die,
        )

    def _die(self, error: BaseException) -> None:
        self._dead = True
        self._on_death(error)

    async def begin(self) -> None:
        """Announce the model and accept requests.

        Raises:
            BusUnavailable: it is not known to be announced; nothing was started.
        """
        if self._adapters is not None:
            # Why not the engine's thread: it has not started.
            await self._adapters.scan(run_in_dedicated_thread)
        await self._card_publisher.publish()
        worker_id, handler, start = self.worker.worker_id, self._dispatch_handler, self._start
        self.worker.pump.start()
        self._subscriptions = [
            await self._bus.serve(subjects.dispatch(worker_id), handler.dispatch),
            await self._bus.serve(subjects.worker_cancel(worker_id), handler.cancel),
            await self._bus.serve(subjects.worker_park(worker_id), handler.park),
        ]
        start(self._reporter.run(), self._tasks)
        start(self._reporter.resume_points.run(), self._tasks)
        start(self.watchdog.run(), self._tasks)
        start(self._card_publisher.repeat(), self._announcing)
        if self._adapters is not None:
            start(self._follow(self._adapters), self._announcing)
        if self._prefixes is not None:
            start(self._prefixes.run(self._clock.monotonic_s), self._announcing)
        log.info("worker.ready", extra={"worker_id": worker_id, "model": self.card.model})

    def _start(self, work: Coroutine[Any, Any, None], group: list[asyncio.Task[None]]) -> None:
        group.append(self._group.create_task(work))

    async def _follow(self, adapters: AdapterFolder) -> None:
        def on_change() -> None:
            self._reporter.on_release()
            self._card_publisher.on_change()

        every_s = self._settings.adapters_scan_s
        await adapters.run(self.worker.pump.do, on_change, every_s=every_s)

    def stop_announcing(self) -> None:
        """Stop publishing: a successor's card must remain the newest one."""
        for task in self._announcing:
            task.cancel()

    async def wait_until_idle(self, *, quiet_s: float, within_s: float) -> None:
        """Accept requests until none has run for `quiet_s`, or the time is over."""
        quiet_since_s = self._clock.monotonic_s()

        def is_idle() -> bool:
            nonlocal quiet_since_s
            now_s = self._clock.monotonic_s()
            if self.worker.assignments.running_sequences:
                quiet_since_s = now_s
            return self._dead or now_s - quiet_since_s >= quiet_s

        await _until(is_idle, within_s)

    async def drain(self, *, within_s: float) -> None:
        """Accept nothing new, finish what runs, then park the rest; at once if the engine died."""
        worker, reporter = self.worker, self._reporter
        self._dispatch_handler.draining = True
        await reporter.report()
        log.info("worker.draining", extra={"running": worker.assignments.running_sequences})
        assignments = worker.assignments

        def is_over() -> bool:
            return not assignments.running_sequences or self._dead or self._stopped_waiting

        await _until(is_over, within_s)
        worker.park_all(ParkCause.PARK_CAUSE_DRAIN)
        await _until(lambda: worker.idle and not reporter.resume_points, SETTLE_S)
        if worker.pump.alive:
            await worker.pump.stop()
        log.info("worker.drained", extra={"held": len(worker.assignments)})

    def stop_waiting(self) -> None:
        """Let a drain park at once what still runs."""
        self._stopped_waiting = True

    async def leave(self) -> None:
        """Send the last report, once it is drained."""
        # Why first: a report after the last one would make the worker seem to live.
        tasks = [*self._tasks, *self._announcing]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._reporter.report(leaving=True)
        while self._subscriptions:
            await self._subscriptions.pop().close()
        self.worker.close()


async def _until(is_true: Callable[[], bool], within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not is_true():
                await asyncio.sleep(POLL_S)
