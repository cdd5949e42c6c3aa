"""Whether what requests will have used can be stored, for those that are billed."""

from __future__ import annotations

import asyncio
import logging
import time

from headrace.bus import BusError
from headrace.bus.usage import UsageState, UsageStream
from headrace.cancellation import recheck_cancelled
from headrace.errors import QuotaUnavailable
from headrace.telemetry.condition_log import ConditionLog

log = logging.getLogger(__name__)

CHECK_S = 2.0
MARGIN_BYTES = 256 << 20
"""Room that is left to the records of requests under way: of half a million of them."""
MARGIN_S = 24 * 3600.0
"""The same of age: as long as a request may live, and then be read."""
RETRY_AFTER_S = 30.0
"""Control has to store what it missed."""


class UsageRoom:
    """Refuses requests of a key or a person once the stream of usage records is nearly full.

    Then control, or the quota keeper, has read nothing of it for long. Requests without a key or a
    person go on: nothing is lost that would be billed.
    """

    def __init__(self, bus: UsageStream) -> None:
        self._bus = bus
        self._fact = ""
        """Why nothing more may be used; empty: there is room."""
        self._full = ConditionLog(log, active="usage.full", cleared="usage.has_room")

    def check(self, *payers: str) -> None:
        """
        Args:
            payers: keys and persons that pay for requests; empty ones pay for nothing.

        Raises:
            QuotaUnavailable: one of them pays, and what it uses might not be stored.
        """
        if self._fact and any(payers):
            raise QuotaUnavailable(self._fact, retry_after_s=RETRY_AFTER_S)

    async def run(self) -> None:
        """Look every `CHECK_S`, until cancelled. What was found counts while the broker is away."""
        while True:
            try:
                self._fact = full_fact(await self._bus.usage_state())
            except BusError:
                recheck_cancelled()
            if self._fact:
                self._full.active(time.monotonic(), why=self._fact)
            else:
                self._full.cleared(time.monotonic())
            await asyncio.sleep(CHECK_S)


def full_fact(state: UsageState) -> str:
    """Return why the stream counts as full; empty if it does not."""
    behind = "control or the quota keeper has to read it first"
    if state.stored_bytes > state.max_bytes - min(MARGIN_BYTES, state.max_bytes // 2):
        fact = f"{state.stored_bytes} of {state.max_bytes} bytes are in use"
    elif state.oldest_age_s > state.max_age_s - MARGIN_S:
        days, most = state.oldest_age_s / 86_400, state.max_age_s / 86_400
        fact = f"its oldest record is {days:.1f} of {most:g} days old"
    else:
        return ""
    return f"usage cannot be recorded: the usage stream is nearly full, {fact}; {behind}"
