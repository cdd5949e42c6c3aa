"""Publishes what requests have used, before their messages are removed. ADR 17 has the reasons."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from headrace.bus import StoreRefused
from headrace.bus.usage import RequestSources, UsageStream
from headrace.clock import Clock
from headrace.internal.v1.usage_pb2 import TenantTotals, UsageRecord, UsageRecords
from headrace.telemetry.condition_log import ConditionLog
from headrace_scheduler.base import metrics
from headrace_scheduler.machine.state_machine import Leadership

log = logging.getLogger(__name__)


class LeaseOver(StoreRefused):
    """Another leader may lead the model: nothing was published."""


class UsagePublisher:
    """The records of one leadership, each published once or more, as one content.

    Args:
        may_act: as for `Leader`.
    """

    def __init__(
        self, leadership: Leadership, bus: UsageStream, clock: Clock, may_act: Callable[[], bool]
    ) -> None:
        self._leadership, self._bus, self._clock = leadership, bus, clock
        self._may_act = may_act
        self.sources = RequestSources("")
        """Set before anything is published."""
        self._totals: dict[str, TenantTotals] = {}
        """By tenant, of all that this leadership has published."""
        self._refused = ConditionLog(log, active="usage.refused", cleared="usage.stored")

    def complete(self, record: UsageRecord) -> None:
        """Add what the leader knows to the record of a request that has just ended."""
        record.source = self.sources.of(record.sequence)
        record.end_ms = round(1000 * self._clock.unix_s())

    async def publish(self, records: Sequence[UsageRecord]) -> None:
        """Publish records together.

        Where the stream is full, those without a key or a person are dropped: no limit and no bill
        needs them, and a mesh without keys must not come to a stop for them.

        Raises:
            StoreRefused: the stream is full, and one of them has a key or a person; or the lease
                may have run out.
            BusUnavailable: they are not known to be stored.
        """
        if not self._may_act():
            # Why: of a request that this leader, suspended meanwhile, took for abandoned, another
            # leader may be about to publish more.
            raise LeaseOver("the lease may have run out")
        model, totals = self._leadership.model, self._totals_with(records)
        message = UsageRecords(
            records=records, model=model, epoch=self._leadership.epoch, totals=totals.values()
        )
        try:
            await self._bus.publish_usage(message.SerializeToString())
        except StoreRefused as error:
            self._refused.active(time.monotonic(), model=model, why=str(error))
            if any(record.key_id or record.person for record in records):
                raise
            metrics.usage_dropped.labels(model).inc(len(records))
        else:
            # Why only now: what was not stored is published again, and counts once.
            self._totals.update(totals)
            self._refused.cleared(time.monotonic())
            metrics.usage_published.labels(model).inc(len(records))

    def _totals_with(self, records: Iterable[UsageRecord]) -> dict[str, TenantTotals]:
        """Return the totals of the tenants of these records, once they are published."""
        totals: dict[str, TenantTotals] = {}
        for record in records:
            if (total := totals.get(record.tenant)) is None:
                total = totals[record.tenant] = TenantTotals(tenant=record.tenant)
                if (before := self._totals.get(record.tenant)) is not None:
                    total.CopyFrom(before)
            total.requests += 1
            total.input_tokens += record.input_tokens
            total.output_tokens += record.output_tokens
        return totals
