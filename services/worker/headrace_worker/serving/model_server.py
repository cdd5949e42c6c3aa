"""One loaded model, served under a worker id of its own from its announcement to its farewell.

To the mesh each is a worker. A process that loads another model serves the two side by
side for a while, and nothing in the mesh needs to know that they share a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from headrace.bus import Bus, Subscription, subjects
from headrace.clock import SystemClock
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.model_names import listed
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.dispatch.dispatch_handler import DispatchHandler
from headrace_worker.dispatch.prefix_reports import PrefixReporter, ReportedBlocks
from headrace_worker.dispatch.reporter import Reporter
from headrace_worker.dispatch.step_watchdog import StepWatchdog
from headrace_worker.engine.base.loaded import LoadedModel
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread
from headrace_worker.runtime.metrics import WorkerMetrics
from headrace_worker.runtime.worker import Worker
from headrace_worker.serving.adapter_folder import AdapterFolder
from headrace_worker.serving.card_publisher import CardPublisher
from headrace_worker.serving.model_card import model_card, tokenizer_bundle

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""At the end, time for gateways to acknowledge and for the leader to take what was parked."""
POLL_S = 0.02


class ModelServer:
    """A model on its way through: `begin`, then `drain`, then `leave`.

    Args:
        group: every task of it lives there.
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
        """The card repeated, what changes it, and hints: what brings requests here."""
        self._subscriptions: list[Subscription] = []
        bundle = tokenizer_bundle(loaded.tokenizer)
        now_unix_s = self._clock.unix_s()
        card = model_card(settings.model_name, loaded, bundle, now_unix_s=now_unix_s)
        card.aliases.extend(listed(settings.model_aliases))
        card.configured_by = settings.configured_by
        if settings.tool_format != "auto":
            card.tool_format = settings.tool_format.removesuffix("none")
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
            on_change=lambda: self._reporter.release(),
            on_death=self._die,
        )
        self._dispatch_handler = DispatchHandler(self.worker, card, metrics, self.watchdog)
        self._reporter = Reporter(
            bus,
            self.worker,
            self._dispatch_handler,
            card,
            metrics,
            self.watchdog,
            name=settings.name,
            interval_s=settings.report_interval_s,
        )
        self._prefixes = self._make_prefixes(loaded)

    def _make_prefixes(self, loaded: LoadedModel) -> PrefixReporter | None:
        blocks = self._settings.prefix_report_blocks
        if loaded.prefixes is None or not blocks:
            return None
        worker = self.worker
        told = ReportedBlocks(blocks)
        return PrefixReporter(
            self._bus, worker.worker_id, self.card.model, loaded.prefixes, worker.pump, told
        )

    @property
    def card(self) -> ModelCard:
        return self._card_publisher.card

    def _make_worker(self, loaded: LoadedModel, metrics: WorkerMetrics) -> Worker:
        return Worker(
            f"{self._settings.name}-{secrets.token_hex(4)}",
            loaded.engine,
            clock=self._clock,
            metrics=metrics,
            group=self._group,
            orphan_grace_s=self._settings.orphan_grace_s,
            on_release=lambda: self._reporter.release(),
            on_park=lambda points: self._reporter.park(points),
            on_death=self._die,
        )

    def _die(self, error: BaseException) -> None:
        self._dead = True
        self._on_death(error)

    async def begin(self) -> None:
        """Announce the model and take requests.

        Raises:
            BusUnavailable: it is not known to be announced; nothing was begun.
        """
        if self._adapters is not None:
            await self._adapters.scan(
                run_in_dedicated_thread
            )  # the engine's own thread has not begun
        await self._card_publisher.publish()
        worker, bus = self.worker, self._bus
        worker.pump.start()
        self._subscriptions = [
            await bus.serve(subjects.dispatch(worker.worker_id), self._dispatch_handler.dispatch),
            await bus.serve(
                subjects.worker_cancel(worker.worker_id), self._dispatch_handler.cancel
            ),
            await bus.serve(subjects.worker_park(worker.worker_id), self._dispatch_handler.park),
        ]
        self._tasks = [
            self._group.create_task(self._reporter.run()),
            self._group.create_task(self._reporter.send_resume_points()),
            self._group.create_task(self.watchdog.run()),
        ]
        self._announcing = [self._group.create_task(self._card_publisher.repeat())]
        if self._adapters is not None:
            self._announcing.append(self._group.create_task(self._follow(self._adapters)))
        if self._prefixes is not None:
            hints = self._prefixes.run(self._clock.monotonic_s)
            self._announcing.append(self._group.create_task(hints))
        log.info("worker.ready", extra={"worker_id": worker.worker_id, "model": self.card.model})

    async def _follow(self, adapters: AdapterFolder) -> None:
        def tell() -> None:
            self._reporter.release()
            self._card_publisher.change()

        every_s = self._settings.adapters_scan_s
        await adapters.run(self.worker.pump.do, tell, every_s=every_s)

    def stop_announcing(self) -> None:
        """Another's card is the newest now, and this one must not come after it."""
        for task in self._announcing:
            task.cancel()

    async def wait_until_idle(self, *, quiet_s: float, within_s: float) -> None:
        """Go on taking requests until none has run for `quiet_s`, or the time is over."""
        quiet_since_s = self._clock.monotonic_s()

        def is_dry() -> bool:
            nonlocal quiet_since_s
            now_s = self._clock.monotonic_s()
            if self.worker.assignments.running_sequences:
                quiet_since_s = now_s
            return self._dead or now_s - quiet_since_s >= quiet_s

        await _until(is_dry, within_s)

    async def drain(self, *, within_s: float) -> None:
        """Take nothing new, finish, then park. A dead engine parks at once."""
        worker, reporter = self.worker, self._reporter
        self._dispatch_handler.draining = True
        await reporter.report()
        log.info("worker.draining", extra={"running": worker.assignments.running_sequences})
        await _until(
            lambda: (
                worker.assignments.running_sequences == 0 or self._dead or self._stopped_waiting
            ),
            within_s,
        )
        reporter.park(worker.park_all(ParkCause.PARK_CAUSE_DRAIN))
        await _until(lambda: worker.idle and not reporter.has_unsent_points, SETTLE_S)
        if worker.pump.alive:
            await worker.pump.stop()
        log.info("worker.drained", extra={"held": len(worker.assignments)})

    def stop_waiting(self) -> None:
        """Let a drain wait no longer for what runs."""
        self._stopped_waiting = True

    async def leave(self) -> None:
        """The last word, once it is drained."""
        # Why first: a report after the farewell would bring the worker back to life.
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
