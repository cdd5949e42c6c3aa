"""Which of the scheduler processes keeps the quotas: the one that holds the lease."""

from __future__ import annotations

import asyncio
import logging

from headrace.bus import Bus, BusError
from headrace.bus.lease import HeldLease, LeaseLost, LeaseTerms, first_of
from headrace.bus.stores import KEEPER_LEASE
from headrace.cancellation import recheck_cancelled, run_isolated
from headrace.clock import Clock
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.keeper.keeper import QuotaKeeper
from headrace_scheduler.keeper.spent import SpentBefore
from headrace_scheduler.keeper.tables import QuotaTables
from headrace_scheduler.runtime.leader import SteppedDown

log = logging.getLogger(__name__)


class KeeperElection:
    """Stands by, keeps the quotas, steps down, stands by again.

    Where control has published no tables there are no limits, and no keeper.
    """

    def __init__(
        self, scheduler_id: str, bus: Bus, settings: SchedulerSettings, clock: Clock
    ) -> None:
        self._bus, self._settings, self._clock = bus, settings, clock
        terms = LeaseTerms(
            KEEPER_LEASE, scheduler_id, settings.quota_lease_ttl_s, settings.lease_renew_s
        )
        self._lease = HeldLease(bus, terms, clock, metrics.retried.labels("renew").inc)
        self._tables = QuotaTables(bus, clock)

    async def run(self) -> None:
        """Stand by and keep until cancelled; then release the lease."""
        async with self._tables.watching():
            while True:
                if self._tables.are_whole and await self._lease.try_acquire() is not None:
                    await self._keep()
                recheck_cancelled()
                await asyncio.sleep(self._settings.lease_acquire_s)

    async def _keep(self) -> None:
        try:
            recheck_cancelled()
            await run_isolated(self._keep_until_over())
        except* (SteppedDown, LeaseLost) as over:
            log.warning("quota.stepped_down", extra={"why": str(first_of(over))})
        except* BusError as failed:
            log.warning("quota.keeper_failed", extra={"why": repr(first_of(failed))})
        finally:
            metrics.stop_keeping()
            await self._lease.release()

    async def _keep_until_over(self) -> None:
        keeper = QuotaKeeper(
            self._bus,
            self._tables.terms,
            self._clock,
            lambda: self._lease.is_held,
            SpentBefore(self._bus, self._tables).changes,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.renew_until_lost())
            tasks.create_task(keeper.run())
