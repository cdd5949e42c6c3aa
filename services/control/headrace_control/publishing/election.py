"""Which of the control processes is active: the one that holds the lease `control`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.bus import BusError, Leases, LeaseTaken
from headrace.cancellation import recheck_cancelled, run_isolated
from headrace.clock import Clock
from headrace.errors import ControlUnavailable
from headrace.telemetry.condition_log import ConditionLog
from headrace_control.base import metrics
from headrace_control.base.settings import ControlSettings

log = logging.getLogger(__name__)

LEASE = "control"
RENEW_S = 1.0
"""Longest wait for one renewal to be answered."""


class SteppedDown(Exception):
    """This process no longer holds the lease."""


class Election:
    """At most one process is active.

    This one is until `lease_ttl_s` after the start of the last call that renewed the lease: by its
    own clock never longer than by the broker's.
    """

    def __init__(
        self, leases: Leases, control_id: str, settings: ControlSettings, clock: Clock
    ) -> None:
        self._leases, self._control_id = leases, control_id
        self._settings, self._clock = settings, clock
        self._until_s = float("-inf")
        self._other_seen_s = float("-inf")
        self._unknown = ConditionLog(log, active="lease.unknown", cleared="lease.known")
        self._failing = ConditionLog(log, active="control.cannot_work", cleared="control.works")

    @property
    def is_active(self) -> bool:
        return self._clock.monotonic_s() < self._until_s

    @property
    def knows_other(self) -> bool:
        """Whether another process was seen to be active lately."""
        return self._clock.monotonic_s() - self._other_seen_s < self._settings.lease_ttl_s

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stand by, and do the work while active, until cancelled; then release the lease.

        The work is cancelled when the lease is lost. If it fails, the lease is released, so that
        another process may try.
        """
        while True:
            if await self._try_acquire():
                await self._work(work)
            recheck_cancelled()
            await asyncio.sleep(self._settings.lease_acquire_s)

    async def _try_acquire(self) -> bool:
        started_s, ttl_s = self._clock.monotonic_s(), self._settings.lease_ttl_s
        try:
            async with asyncio.timeout(ttl_s / 2):
                await self._leases.acquire(LEASE, self._control_id, ttl_s=ttl_s)
        except LeaseTaken:
            self._unknown.cleared(started_s)
            self._other_seen_s = started_s
            return False
        except (BusError, TimeoutError) as error:
            self._unknown.active(started_s, why=str(error) or "no answer")
            return False
        self._unknown.cleared(started_s)
        self._until_s = started_s + ttl_s
        return True

    async def _work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        log.info("control.active")
        metrics.active.set(1)
        try:
            recheck_cancelled()
            await run_isolated(self._work_until_over(work))
        except* SteppedDown as over:
            log.warning("control.stepped_down", extra={"why": str(_first(over))})
        # ValueError: a file of the first keys holds none.
        except* (BusError, ControlUnavailable, OSError, ValueError) as failed:
            now_s = self._clock.monotonic_s()
            self._failing.active(now_s, why=str(_first(failed)))
        # Why all: whatever it is, another process, or this one a moment later, may succeed.
        except* Exception as failed:
            log.error("control.failed", exc_info=_first(failed))
        finally:
            metrics.active.set(0)
            await self._release()

    async def _work_until_over(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(work())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_renew_s)
            started_s, ttl_s = self._clock.monotonic_s(), self._settings.lease_ttl_s
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._leases.renew(LEASE, self._control_id, ttl_s=ttl_s)
            except LeaseTaken as error:
                self._until_s = float("-inf")
                raise SteppedDown(str(error)) from error
            except (BusError, TimeoutError) as error:
                recheck_cancelled()
                if not self.is_active:
                    raise SteppedDown(f"not renewed in {ttl_s} s: {error!r}") from error
            else:
                self._until_s = started_s + ttl_s
                recheck_cancelled()

    async def _release(self) -> None:
        """Release the lease, so that a standby need not wait until it expires."""
        if not self.is_active:
            return
        self._until_s = float("-inf")
        try:
            async with asyncio.timeout(RENEW_S):
                await self._leases.release(LEASE)
        except (BusError, TimeoutError) as error:
            log.info("lease.not_released", extra={"why": repr(error)})


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
