"""Which of the control processes is active: the one that holds the lease `control`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.bus import BusError, Leases
from headrace.bus.lease import HeldLease, LeaseLost, LeaseTerms, first_of
from headrace.cancellation import recheck_cancelled, run_isolated
from headrace.clock import Clock
from headrace.errors import ControlUnavailable
from headrace.telemetry.condition_log import ConditionLog
from headrace_control.base import metrics
from headrace_control.base.settings import ControlSettings

log = logging.getLogger(__name__)

LEASE = "control"


class SteppedDown(Exception):
    """This process no longer holds the lease."""


class Election:
    """At most one process is active: the one that holds the lease."""

    def __init__(
        self, leases: Leases, control_id: str, settings: ControlSettings, clock: Clock
    ) -> None:
        self._settings, self._clock = settings, clock
        terms = LeaseTerms(LEASE, control_id, settings.lease_ttl_s, settings.lease_renew_s)
        self._lease = HeldLease(leases, terms, clock)
        self._failing = ConditionLog(log, active="control.cannot_work", cleared="control.works")

    @property
    def is_active(self) -> bool:
        return self._lease.is_held

    @property
    def knows_other(self) -> bool:
        """Whether another process was seen to be active lately."""
        return self._lease.other_is_known

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stand by, and do the work while active, until cancelled; then release the lease.

        The work is cancelled when the lease is lost. If it fails, the lease is released, so that
        another process may try.
        """
        while True:
            if await self._lease.try_acquire() is not None:
                await self._work(work)
            recheck_cancelled()
            await asyncio.sleep(self._settings.lease_acquire_s)

    async def _work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        log.info("control.active")
        metrics.active.set(1)
        try:
            recheck_cancelled()
            await run_isolated(self._work_until_over(work))
        except* (SteppedDown, LeaseLost) as over:
            log.warning("control.stepped_down", extra={"why": str(first_of(over))})
        # ValueError: a file of the first keys holds none.
        except* (BusError, ControlUnavailable, OSError, ValueError) as failed:
            now_s = self._clock.monotonic_s()
            self._failing.active(now_s, why=str(first_of(failed)))
        # Why all: whatever it is, another process, or this one a moment later, may succeed.
        except* Exception as failed:
            log.error("control.failed", exc_info=first_of(failed))
        finally:
            metrics.active.set(0)
            await self._lease.release()

    async def _work_until_over(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.renew_until_lost())
            tasks.create_task(work())
