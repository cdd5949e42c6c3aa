"""Subscribes to the reports of leaders and workers, for the views that admission and APIs read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from google.protobuf.message import DecodeError

from headrace.bus import Messages, OnMessage, subjects
from headrace.clock import Clock
from headrace.internal.v1.reports_pb2 import LaneReport, WorkerReport
from headrace.v1.fleet_pb2 import Lane, Worker
from headrace_gateway.base import metrics
from headrace_gateway.queue.fleet import FleetView
from headrace_gateway.queue.lanes import LaneView

log = logging.getLogger(__name__)


class ReportedFleet:
    """The fleet for the APIs: as it is now, by this gateway's clock."""

    def __init__(self, fleet: FleetView, lanes: LaneView, clock: Clock) -> None:
        self._fleet = fleet
        self._lanes = lanes
        self._clock = clock

    def workers(self) -> list[Worker]:
        return self._fleet.workers(self._clock.monotonic_s())

    def lanes(self) -> list[Lane]:
        return list(self._lanes.lanes(self._clock.monotonic_s()))


@asynccontextmanager
async def following(
    messages: Messages, lanes: LaneView, fleet: FleetView, clock: Clock
) -> AsyncIterator[None]:
    """Keep the views up to date for the length of a `with`."""

    def on_lanes(payload: bytes) -> None:
        lanes.take(LaneReport.FromString(payload), clock.monotonic_s())

    def on_worker(payload: bytes) -> None:
        fleet.take(WorkerReport.FromString(payload), clock.monotonic_s())

    subscriptions = [
        await messages.subscribe(subjects.LANE_REPORTS, _readable("lanes", on_lanes)),
        await messages.subscribe(subjects.WORKER_REPORTS, _readable("worker", on_worker)),
    ]
    try:
        yield
    finally:
        for subscription in subscriptions:
            await subscription.close()


def _readable(report: str, take: Callable[[bytes], None]) -> OnMessage:
    def on_message(payload: bytes) -> None:
        try:
            take(payload)
        except DecodeError as error:
            metrics.unreadable_reports_total.labels(report).inc()
            log.warning("report.unreadable", extra={"report": report, "error": str(error)})

    return on_message
