"""Workers and lanes, as their reports show them to control."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.bus import Messages
from headrace.clock import Clock
from headrace.fleet.lanes import ReportedLanes
from headrace.fleet.reports import ReportedFleet, following
from headrace.fleet.workers import FleetView
from headrace_control.base import metrics

FRESH_S = 3.0
"""A leader's report that is older is not shown; they come several times a second."""


class FleetReports:
    """What `ReportedFleet` shows is up to date while this runs."""

    def __init__(self, messages: Messages, clock: Clock) -> None:
        self._messages, self._clock = messages, clock
        self._lanes, self._workers = ReportedLanes(fresh_s=FRESH_S), FleetView()
        self.shown = ReportedFleet(self._workers, self._lanes, clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        def count(report: str) -> None:
            metrics.unreadable_reports.labels(report).inc()

        async with following(
            self._messages, self._lanes, self._workers, self._clock, on_unreadable=count
        ):
            yield
