"""Leader election for one model: stand by, lead, step down, stand by again."""

from __future__ import annotations

import asyncio
import logging

from headrace.bus import Bus, BusError
from headrace.bus.lease import HeldLease, LeaseLost, LeaseTerms, first_of
from headrace.cancellation import recheck_cancelled, run_isolated
from headrace.clock import Clock
from headrace.model_names import lane_id
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.runtime.leader import Leader, SteppedDown
from headrace_scheduler.runtime.metrics_observer import MetricsObserver
from headrace_scheduler.runtime.report_cache import ReportCache
from headrace_scheduler.state.events import ModelRemoved

log = logging.getLogger(__name__)

POLL_S = 0.5
FINISHED_S = 2.0
"""How long a removed model must have nothing left before its card is deleted: a gateway that has
not read the removal yet may submit a request meanwhile."""


class LeaderElection:
    """At most one process leads a model: the one that holds the lease."""

    def __init__(
        self,
        model: str,
        scheduler_id: str,
        bus: Bus,
        settings: SchedulerSettings,
        clock: Clock,
        report_cache: ReportCache,
    ) -> None:
        self.model, self._scheduler_id = model, scheduler_id
        self._bus, self._settings, self._clock = bus, settings, clock
        self._report_cache = report_cache
        terms = LeaseTerms(
            f"leader.{lane_id(model)}",
            scheduler_id,
            settings.lease_ttl_s,
            settings.lease_renew_s,
            {"model": model},
        )
        self._lease = HeldLease(bus, terms, clock, metrics.retried.labels("renew").inc)
        self._removed: bytes | None = None
        self.leader: Leader | None = None

    @property
    def knows_leader(self) -> bool:
        """Whether this process leads, or has recently seen that another does."""
        return self._lease.is_known

    @property
    def removed(self) -> bool:
        """Whether the model is no longer configured, so that its lanes are to be emptied."""
        return self._removed is not None

    def on_card(self, card: bytes, *, removed: bool) -> None:
        """Apply the model's newest card."""
        self._removed = card if removed else None
        if self.leader is not None:
            self.leader.handle(ModelRemoved(self.removed))

    async def run(self) -> None:
        """Stand by and lead until cancelled; then release the lease."""
        while True:
            if (epoch := await self._lease.try_acquire()) is not None:
                await self._lead(epoch)
            recheck_cancelled()
            await asyncio.sleep(self._settings.lease_acquire_s)

    async def _lead(self, epoch: int) -> None:
        metrics.leader.labels(self.model).set(1)
        metrics.epoch.labels(self.model).set(epoch)
        metrics.take_overs.labels(self.model).inc()
        log.info("leadership.begun", extra={"model": self.model, "epoch": epoch})
        try:
            recheck_cancelled()
            await run_isolated(self._lead_until_over(epoch))
        except* (SteppedDown, LeaseLost) as over:
            log.warning("leadership.over", extra={"model": self.model, "why": str(first_of(over))})
        except* BusError as failed:
            log.warning(
                "leadership.failed", extra={"model": self.model, "why": repr(first_of(failed))}
            )
        finally:
            self.leader = None
            metrics.stop_leading(self.model)
            await self._lease.release()

    async def _lead_until_over(self, epoch: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            leader = self._make_leader(epoch)
            tasks.create_task(self._lease.renew_until_lost())
            tasks.create_task(leader.run())
            tasks.create_task(self._delete_card_once_finished(leader))

    def _make_leader(self, epoch: int) -> Leader:
        now_s = self._clock.monotonic_s()
        listening_since_s = self._report_cache.listening_since_s
        leadership = Leadership(self._scheduler_id, self.model, epoch, now_s, listening_since_s)
        machine = Machine(leadership, self._settings, MetricsObserver(self.model))
        for event in self._report_cache.recent(now_s):
            machine.apply(event, now_s=now_s)
        machine.apply(ModelRemoved(self.removed), now_s=now_s)
        self.leader = Leader(
            machine, self._bus, self._settings, self._clock, lambda: self._lease.is_held
        )
        return self.leader

    async def _delete_card_once_finished(self, leader: Leader) -> None:
        """Complete a removal; `Service` ends this election when the card is gone.

        Why not once the machine is empty: the results of what it has ended may not be
        stored yet, and the end of the election cancels that.
        """
        finished_since_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(POLL_S)
            now_s = self._clock.monotonic_s()
            if self._removed is None or not leader.has_finished:
                finished_since_s = now_s
            elif now_s - finished_since_s >= FINISHED_S:
                try:
                    await self._bus.replace_card(self.model, self._removed, None)
                except BusError as error:
                    log.info("card.not_deleted", extra={"model": self.model, "why": repr(error)})
                recheck_cancelled()
