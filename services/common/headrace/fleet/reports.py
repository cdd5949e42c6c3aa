"""Subscribes to the reports of leaders and workers, and keeps what they show."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from google.protobuf.message import DecodeError

from headrace.bus import Messages, OnMessage, subjects
from headrace.clock import Clock
from headrace.fleet.lanes import ReportedLanes
from headrace.fleet.workers import FleetView
from headrace.internal.v1.reports_pb2 import LaneReport, WorkerReport
from headrace.v1.fleet_pb2 import Lane, Worker

log = logging.getLogger(__name__)


class ReportedFleet:
    """The fleet for the APIs: as it is now, by this process's clock."""

    def __init__(self, fleet: FleetView, lanes: ReportedLanes, clock: Clock) -> None:
        self._fleet = fleet
        self._lanes = lanes
        self._clock = clock

    def workers(self) -> list[Worker]:
        return self._fleet.workers(self._clock.monotonic_s())

    def lanes(self) -> list[Lane]:
        return list(self._lanes.lanes(self._clock.monotonic_s()))

    def output_tokens_per_s(self) -> dict[str, float]:
        """Return the rate of every worker, by id, over its last seconds."""
        return self._fleet.output_tokens_per_s(self._clock.monotonic_s())


@asynccontextmanager
async def following(
    messages: Messages,
    lanes: ReportedLanes,
    fleet: FleetView,
    clock: Clock,
    *,
    on_unreadable: Callable[[str], None],
) -> AsyncIterator[None]:
    """Keep the views up to date for the length of a `with`.

    `on_unreadable` is called with the kind of a report that cannot be decoded: lanes or worker.
    """

    def on_lanes(payload: bytes) -> None:
        lanes.take(LaneReport.FromString(payload), clock.monotonic_s())

    def on_worker(payload: bytes) -> None:
        fleet.take(WorkerReport.FromString(payload), clock.monotonic_s())

    def readable(report: str, take: Callable[[bytes], None]) -> OnMessage:
        def on_message(payload: bytes) -> None:
            try:
                take(payload)
            except DecodeError as error:
                on_unreadable(report)
                log.warning("report.unreadable", extra={"report": report, "error": str(error)})

        return on_message

    subscriptions = [
        await messages.subscribe(subjects.LANE_REPORTS, readable("lanes", on_lanes)),
        await messages.subscribe(subjects.WORKER_REPORTS, readable("worker", on_worker)),
    ]
    try:
        yield
    finally:
        for subscription in subscriptions:
            await subscription.close()
