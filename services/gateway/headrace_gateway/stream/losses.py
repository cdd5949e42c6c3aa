"""What happens when a worker's stream breaks: a short wait, a fence, and word to the leader."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from headrace.bus import Messages, subjects
from headrace.bus.outbox import OutboxPerModel, portions
from headrace.clock import Clock
from headrace.errors import EngineFailed
from headrace.internal.v1.reports_pb2 import LostRequest, ResumePoint
from headrace_gateway.base import metrics
from headrace_gateway.stream.open_request import Feed, Outlet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loss:
    outlet: Outlet
    attempt: int
    worker_id: str
    error: EngineFailed | None

    @property
    def is_moot(self) -> bool:
        """It ended, or somebody else already goes on with it."""
        relay = self.outlet.relay
        return relay.ended or relay.newest > self.attempt


@dataclass(frozen=True, slots=True)
class _BrokenStream:
    worker_id: str
    feeds: list[Feed]
    judged_s: float


class Losses:
    """Attempts that gateway and worker lost between them.

    Bounded by the open requests: each has at most one attempt to lose at a time.
    """

    def __init__(
        self, gateway_id: str, messages: Messages, clock: Clock, *, grace_s: float, answer_s: float
    ) -> None:
        self._gateway_id = gateway_id
        self._messages = messages
        self._clock = clock
        self._grace_s = grace_s
        self._answer_s = answer_s
        self._broken: asyncio.Queue[_BrokenStream] = asyncio.Queue()
        self._reports = OutboxPerModel[_Loss]("lost", self._send)

    def stream_broke(self, worker_id: str, feeds: list[Feed]) -> None:
        """These slots were bound when their stream ended; the worker may come back for them."""
        if feeds:
            judged_s = self._clock.monotonic_s() + self._grace_s
            self._broken.put_nowait(_BrokenStream(worker_id, feeds, judged_s))

    def fault(self, feed: Feed, worker_id: str, error: EngineFailed) -> None:
        """This attempt cannot go on: fence it at once."""
        self._lose(feed, worker_id, error)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reports.run())
            tasks.create_task(self._judge())

    async def _judge(self) -> None:
        while True:
            broken = await self._broken.get()
            await asyncio.sleep(broken.judged_s - self._clock.monotonic_s())
            for feed in broken.feeds:
                if not _is_resumed(feed):
                    self._lose(feed, broken.worker_id, None)

    def _lose(self, feed: Feed, worker_id: str, error: EngineFailed | None) -> None:
        outlet = feed.outlet
        if not outlet.relay.hears(feed.attempt):
            return
        outlet.fence(feed.attempt)
        metrics.lost_total.labels(outlet.admitted.model).inc()
        log.warning(
            "request.lost",
            extra={
                "request_id": outlet.request_id,
                "attempt": feed.attempt,
                "worker_id": worker_id,
                "output_tokens": outlet.relay.output_tokens,
            },
        )
        self._reports.add(outlet.admitted.model, _Loss(outlet, feed.attempt, worker_id, error))

    async def _send(self, model: str, losses: list[_Loss]) -> None:
        # Points are made here and not when lost, so that a late report is true when it is made.
        current = [loss for loss in losses if not loss.is_moot]
        for worker_id in {loss.worker_id for loss in current}:
            points = (
                loss.outlet.resume_point(loss.error)
                for loss in current
                if loss.worker_id == worker_id
            )
            for some in portions(points, ResumePoint.ByteSize):
                request = LostRequest(gateway_id=self._gateway_id, worker_id=worker_id, points=some)
                await self._messages.request(
                    subjects.lost(model), request.SerializeToString(), timeout_s=self._answer_s
                )


def _is_resumed(feed: Feed) -> bool:
    """The worker came back for it on another stream, or it has ended."""
    return feed.outlet.relay.has_ended(feed.choice) or feed.outlet.is_fed(feed.choice, feed.attempt)
