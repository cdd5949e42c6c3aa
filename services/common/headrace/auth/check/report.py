"""Sends what control is to know of callers: last uses of keys, and failed attempts."""

from __future__ import annotations

import asyncio
import logging

from headrace.auth.check.journal import AccessJournal
from headrace.bus import BusError, Messages
from headrace.bus.subjects import ACCESS_REPORTS
from headrace.clock import Clock
from headrace.internal.v1.access_pb2 import AccessReport
from headrace.telemetry.condition_log import ConditionLog

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
_ANSWER_S = 3.0


class AccessReporter:
    """Sends a report every few seconds if there is news, and repeats it until it is answered.

    While control is away one report waits, and the journal, which is bounded, collects the next.
    """

    def __init__(
        self,
        bus: Messages,
        journal: AccessJournal,
        clock: Clock,
        process_id: str,
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._bus, self._journal, self._clock = bus, journal, clock
        self._process_id, self._interval_s = process_id, interval_s
        self._unanswered = ConditionLog(
            log, active="access.report_unanswered", cleared="access.report_answered"
        )

    async def run(self) -> None:
        """Until cancelled."""
        report: AccessReport | None = None
        while True:
            await asyncio.sleep(self._interval_s)
            if report is None:
                report = self._journal.take(self._process_id, round(self._clock.unix_s() * 1000))
            if report is not None and await self._send(report):
                report = None

    async def _send(self, report: AccessReport) -> bool:
        now_s = self._clock.monotonic_s()
        try:
            await self._bus.request(ACCESS_REPORTS, report.SerializeToString(), timeout_s=_ANSWER_S)
        except BusError as error:
            self._unanswered.active(now_s, error=str(error))
            return False
        self._unanswered.cleared(now_s)
        return True
