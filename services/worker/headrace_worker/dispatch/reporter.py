"""What the worker tells schedulers: reports on a beat and at each release; parked requests."""

from __future__ import annotations

import asyncio
import logging

from headrace.bus import BusError, Messages, subjects
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import ParkRequest, ResumePoint, ServedModel, WorkerReport
from headrace_worker.dispatch.dispatch_handler import DispatchHandler
from headrace_worker.dispatch.report_delta import ChangeTracker
from headrace_worker.dispatch.step_watchdog import StepWatchdog
from headrace_worker.engine.base.interface import EngineStatistics
from headrace_worker.runtime.metrics import WorkerMetrics
from headrace_worker.runtime.worker import Worker

log = logging.getLogger(__name__)

RELEASE_GATHER_S = 0.002
"""Releases this close together are told in one report."""
REPORT_GAP_S = 0.01
"""At least between reports. Every scheduler and gateway reads each of them: one for each of a
thousand short requests a second would cost them more than the requests."""
PARK_ANSWER_S = 1.0
PARK_RETRY_S = 0.2
PARK_BYTES = 512 * 1024
"""Half of what NATS takes by default; a single point may be larger."""


class Reporter:
    """Tells the bus how the worker stands."""

    def __init__(
        self,
        bus: Messages,
        worker: Worker,
        dispatch_handler: DispatchHandler,
        card: ModelCard,
        metrics: WorkerMetrics,
        watchdog: StepWatchdog,
        *,
        name: str,
        interval_s: float,
    ) -> None:
        self._bus, self._worker, self._dispatch_handler = bus, worker, dispatch_handler
        self._card, self._metrics, self._watchdog = card, metrics, watchdog
        self._name, self._interval_s = name, interval_s
        self._number = 0
        self._change_tracker = ChangeTracker()
        self._full_s = -interval_s
        self._released = asyncio.Event()
        self._unsent_points: dict[str, ResumePoint] = {}
        self._parked = asyncio.Event()
        self._last: tuple[float, EngineStatistics] | None = None
        self._rate = 0.0
        self._reported_s = -REPORT_GAP_S

    def release(self) -> None:
        """A slot has become free: the next report goes out as soon as it may."""
        self._released.set()

    def park(self, points: list[ResumePoint]) -> None:
        """Have these delivered to the leader, however long it takes."""
        for point in points:
            self._unsent_points[point.request_id] = point
        if points:
            self._parked.set()

    @property
    def has_unsent_points(self) -> bool:
        """Whether resume points wait for the leader's answer."""
        return bool(self._unsent_points)

    async def report(self, *, leaving: bool = False) -> None:
        """Say how the worker stands: on its beat with all that runs, in between with what changed.

        So it costs no more to be heard often than what there is to say.
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
        assignments, statistics = self._worker.assignments, self._worker.pump.statistics()
        self._metrics.statistics(statistics)
        self._measure(statistics)
        served.card.CopyFrom(self._card)
        self._metrics.adapters(assignments.running_adapters())
        served.total_slots = self._worker.facts.max_slots
        served.free_slots = 0 if self._watchdog.refusing else assignments.free_slots
        served.free_cache_tokens = statistics.cache_tokens_total - statistics.cache_tokens_used
        served.dispatch_epoch = self._dispatch_handler.epoch
        served.dispatch_number = self._dispatch_handler.number
        served.output_tokens_per_s = self._rate
        if token_s := self._metrics.token_s:
            served.token_time.FromNanoseconds(int(token_s * 1e9))

    def _fill_running(self, report: WorkerReport) -> None:
        running = dict(self._worker.assignments.running())
        full = report.draining or report.leaving or self._is_due()
        delta = self._change_tracker.report(report.number, running, full=full)
        report.since = delta.since
        if not delta.since:
            self._full_s = self._reported_s
        (served,) = report.models
        served.running_requests = len(running)
        # Why in place: messages that are made apart are copied twice on their way in, and
        # there may be hundreds.
        for request_id, attempt in delta.running.items():
            served.running.add(request_id=request_id, attempt=attempt)
        served.ended.extend(delta.ended)

    def _is_due(self) -> bool:
        """Whether the last report that named everything is a beat old."""
        return self._reported_s - self._full_s >= self._interval_s

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

    def _portion(self) -> dict[str, ResumePoint]:
        """As many of the points to park as go into one message."""
        portion: dict[str, ResumePoint] = {}
        room = PARK_BYTES
        for request_id, point in self._unsent_points.items():
            room -= point.ByteSize()
            if portion and room < 0:
                break
            portion[request_id] = point
        return portion

    async def send_resume_points(self) -> None:
        """Hand parked requests to the leader until cancelled.

        Also after the leader died: the next one answers, or finds them missing from the reports.
        """
        while True:
            await self._parked.wait()
            sent = self._portion()
            request = ParkRequest(worker_id=self._worker.worker_id, points=sent.values())
            try:
                await self._bus.request(
                    subjects.park(self._card.model),
                    request.SerializeToString(),
                    timeout_s=PARK_ANSWER_S,
                )
            except BusError as error:
                log.warning("park.unanswered", extra={"requests": len(sent), "error": str(error)})
                await asyncio.sleep(PARK_RETRY_S)
                continue
            for request_id, point in sent.items():
                if self._unsent_points.get(request_id) is point:
                    del self._unsent_points[request_id]
            if not self._unsent_points:
                self._parked.clear()
