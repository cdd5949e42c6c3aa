"""Attempts that cannot go on: fences and reports them, those of a broken stream after a short wait.

A request that has to wait for quota is reported as well, and again when it can go on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from headrace.bus import Messages, subjects
from headrace.bus.outbox import OutboxPerModel, portions
from headrace.clock import Clock
from headrace.errors import EngineFailed
from headrace.internal.v1.reports_pb2 import LostRequest, ParkCause, ResumePoint
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loss:
    open_request: OpenRequest
    attempt: int
    worker_id: str
    error: EngineFailed | None = None
    cause: ParkCause.ValueType = ParkCause.PARK_CAUSE_LOST

    def point(self) -> ResumePoint:
        point = self.open_request.resume_point(self.error)
        # Why not what holds now: a leader that learns of a wait too late is to ask, too.
        point.cause = self.cause
        return point

    @property
    def is_moot(self) -> bool:
        """It ended, or a newer attempt continues it."""
        output = self.open_request.output
        return output.ended or output.newest_attempt > self.attempt


@dataclass(frozen=True, slots=True)
class _BrokenStream:
    worker_id: str
    bindings: list[SlotBinding]
    judged_s: float


class LostAttempts:
    """Attempts that gateway and worker lost between them.

    Bounded by the open requests: each has at most one attempt to lose at a time.
    """

    def __init__(
        self, settings: GatewaySettings, gateway_id: str, messages: Messages, clock: Clock
    ) -> None:
        self._settings, self._gateway_id = settings, gateway_id
        self._messages, self._clock = messages, clock
        self._broken: asyncio.Queue[_BrokenStream] = asyncio.Queue()
        self._reports = OutboxPerModel[_Loss]("lost", self._send)

    def on_stream_broken(self, worker_id: str, bindings: list[SlotBinding]) -> None:
        """These slots were bound when their stream ended; the worker may open another."""
        if bindings:
            judged_s = self._clock.monotonic_s() + self._settings.worker_reconnect_grace_s
            self._broken.put_nowait(_BrokenStream(worker_id, bindings, judged_s))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reports.run())
            tasks.create_task(self._judge())

    async def _judge(self) -> None:
        while True:
            broken = await self._broken.get()
            await asyncio.sleep(broken.judged_s - self._clock.monotonic_s())
            for binding in broken.bindings:
                if not _is_resumed(binding):
                    self.lose(binding, broken.worker_id)

    def lose(self, binding: SlotBinding, worker_id: str, error: EngineFailed | None = None) -> None:
        """Fence this attempt, which cannot continue, and report it."""
        open_request = binding.open_request
        if not open_request.output.accepts(binding.attempt):
            return
        open_request.fence(binding.attempt)
        metrics.lost_total.labels(open_request.record.model).inc()
        log.warning(
            "request.lost",
            extra={
                "request_id": open_request.request_id,
                "attempt": binding.attempt,
                "worker_id": worker_id,
                "output_tokens": open_request.output.output_tokens,
            },
        )
        self._reports.add(
            open_request.record.model, _Loss(open_request, binding.attempt, worker_id, error)
        )

    def stop_for_quota(self, binding: SlotBinding, worker_id: str) -> None:
        """Fence this attempt, whose request is to run nowhere for now, and report it."""
        open_request, attempt = binding.open_request, binding.attempt
        open_request.fence(attempt)
        loss = _Loss(open_request, attempt, worker_id, cause=ParkCause.PARK_CAUSE_QUOTA)
        self._reports.add(open_request.record.model, loss)

    def go_on(self, open_request: OpenRequest) -> None:
        """Report that a request that was stopped for quota can run again."""
        attempt = open_request.output.newest_attempt
        granted = _Loss(open_request, attempt, "", cause=ParkCause.PARK_CAUSE_QUOTA_GRANTED)
        self._reports.add(open_request.record.model, granted)

    async def _send(self, model: str, lost_attempts: list[_Loss]) -> None:
        # Points are made here and not when lost, so that a late report is true when it is made.
        current = [loss for loss in lost_attempts if not loss.is_moot]
        for worker_id in {loss.worker_id for loss in current}:
            points = (loss.point() for loss in current if loss.worker_id == worker_id)
            for some in portions(points, ResumePoint.ByteSize):
                request = LostRequest(gateway_id=self._gateway_id, worker_id=worker_id, points=some)
                await self._messages.request(
                    subjects.lost(model),
                    request.SerializeToString(),
                    timeout_s=self._settings.leader_answer_timeout_s,
                )


def _is_resumed(binding: SlotBinding) -> bool:
    """Whether the worker has opened it on another stream, or it has ended."""
    return binding.open_request.output.has_ended(
        binding.choice
    ) or binding.open_request.has_binding(binding.choice, binding.attempt)
