"""Reports the state of a worker to schedulers, and the resume points of parked requests."""

from __future__ import annotations

import asyncio

from headrace.bus import Messages, subjects
from headrace.bus.outbox import Outbox
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import ParkRequest, ResumePoint, ServedModel, WorkerReport
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.dispatch.dispatch_handler import DispatchHandler
from headrace_worker.dispatch.report_delta import ChangeTracker
from headrace_worker.dispatch.step_watchdog import StepWatchdog
from headrace_worker.engine.base.interface import EngineStatistics
from headrace_worker.runtime.worker import Worker

RELEASE_GATHER_S = 0.002
"""Slots that become free this close together go into one report."""
REPORT_GAP_S = 0.01
"""Shortest time between reports. Every scheduler and gateway reads each of them: one for each of a
thousand short requests a second would cost them more than the requests."""
PARK_TIMEOUT_S = 1.0
MAX_RETRY_S = 0.2


class Reporter:
    """Publishes the state of a worker."""

    def __init__(
        self,
        bus: Messages,
        worker: Worker,
        dispatch_handler: DispatchHandler,
        card: ModelCard,
        watchdog: StepWatchdog,
        settings: WorkerSettings,
    ) -> None:
        self._bus, self._worker, self._dispatch_handler = bus, worker, dispatch_handler
        self._card, self._watchdog = card, watchdog
        self._name, self._interval_s = settings.name, settings.report_interval_s
        self._number = 0
        self._change_tracker = ChangeTracker()
        self._full_s = -self._interval_s
        self._released = asyncio.Event()
        # They are sent to the leader, however long that takes.
        self.resume_points = Outbox[ResumePoint](
            "resume points",
            self._send_resume_points,
            key=lambda point: point.request_id,
            size=ResumePoint.ByteSize,
            max_retry_s=MAX_RETRY_S,
        )
        self._last: tuple[float, EngineStatistics] | None = None
        self._rate = 0.0
        self._reported_s = -REPORT_GAP_S

    def on_release(self) -> None:
        """Send the next report as soon as possible: a slot has become free."""
        self._released.set()

    async def report(self, *, leaving: bool = False) -> None:
        """Publish a report: at each interval with all that runs, in between with what changed.

        So frequent reports cost no more than the changes in them.
        """
        self._number += 1
        self._reported_s = asyncio.get_running_loop().time()
        report = WorkerReport(
            worker_id=self._worker.worker_id,
            name=self._name,
            number=self._number,
            draining=self._dispatch_handler.draining,
            leaving=leaving,
        )
        self._fill_model(report.models.add())
        self._fill_running(report)
        await self._bus.publish(subjects.WORKER_REPORTS, report.SerializeToString())

    def _fill_model(self, served: ServedModel) -> None:
        assignments, metrics = self._worker.assignments, self._worker.metrics
        statistics = self._worker.pump.statistics()
        metrics.statistics(statistics)
        self._measure(statistics)
        served.card.CopyFrom(self._card)
        metrics.adapters(assignments.running_adapters())
        served.total_slots = self._worker.facts.max_slots
        served.free_slots = 0 if self._watchdog.unavailable_reason else assignments.free_slots
        served.free_cache_tokens = statistics.cache_tokens_total - statistics.cache_tokens_used
        served.dispatch_epoch = self._dispatch_handler.epoch
        served.dispatch_number = self._dispatch_handler.number
        served.output_tokens_per_s = self._rate
        if token_s := metrics.token_s:
            served.token_time.FromNanoseconds(int(token_s * 1e9))

    def _fill_running(self, report: WorkerReport) -> None:
        running = dict(self._worker.assignments.running())
        is_due = self._reported_s - self._full_s >= self._interval_s
        full = report.draining or report.leaving or is_due
        delta = self._change_tracker.delta(report.number, running, full=full)
        report.since = delta.since
        if not delta.since:
            self._full_s = self._reported_s
        (served,) = report.models
        served.running_requests = len(running)
        # Why in place: messages that are made apart are copied twice, and there may be hundreds.
        for request_id, attempt in delta.running.items():
            served.running.add(request_id=request_id, attempt=attempt)
        served.ended.extend(delta.ended)

    def _measure(self, now: EngineStatistics) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._last is not None and now_s - self._last[0] >= self._interval_s:
            made = now.output_tokens - self._last[1].output_tokens
            self._rate = made / (now_s - self._last[0])
        elif self._last is not None:
            return
        self._last = (now_s, now)

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._released.wait()
                since_s = asyncio.get_running_loop().time() - self._reported_s
                await asyncio.sleep(max(RELEASE_GATHER_S, REPORT_GAP_S - since_s))
            except TimeoutError:
                pass
            self._released.clear()
            await self.report()

    async def _send_resume_points(self, points: list[ResumePoint]) -> None:
        """Send parked requests to the leader.

        If the leader dies after its answer, the next one finds them missing from the reports.
        """
        request = ParkRequest(worker_id=self._worker.worker_id, points=points)
        await self._bus.request(
            subjects.park(self._card.model),
            request.SerializeToString(),
            timeout_s=PARK_TIMEOUT_S,
        )
