"""Usage records of what came from a cache: no leader has seen it, so its gateway publishes them.

A record has no tokens, for none was computed: it counts a request, ends the request's reservation,
and costs nothing. One that cannot be stored before its gateway stops is missing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Protocol

from headrace.bus.outbox import Outbox
from headrace.clock import Clock
from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord, UsageRecords
from headrace_gateway.base import metrics
from headrace_gateway.request.generation import ValidRequest

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Records that wait while the stream is full or the broker away; later ones are dropped."""


class UsagePublisher(Protocol):
    """Of the bus."""

    async def publish_usage(self, records: bytes) -> None: ...


class CacheHits:
    def __init__(self, usage: UsagePublisher, gateway_id: str, clock: Clock) -> None:
        self._usage, self._clock = usage, clock
        self._source, self._sequences = f"cache:{gateway_id}", itertools.count(1)
        self._outbox = Outbox[UsageRecord](
            "cache_hits", self._publish, size=lambda record: record.ByteSize()
        )

    def add(
        self, request: ValidRequest, *, kind: UsageKind.ValueType, n: int, reservation_id: str
    ) -> None:
        """Record that `n` choices or inputs of a request came from a cache."""
        if len(self._outbox) >= MAX_WAITING:
            metrics.cache_hits_dropped_total.inc()
            return
        now_ms = round(self._clock.unix_s() * 1000)
        record = UsageRecord(
            source=self._source,
            sequence=next(self._sequences),
            request_id=request.request_id,
            reservation_id=reservation_id,
            tenant=request.tenant,
            key_id=request.key_id,
            person=request.person,
            model=request.model,
            version=request.weights,
            priority=request.priority,
            kind=kind,
            arrival_ms=now_ms,
            end_ms=now_ms,
            cache_hit=True,
            engine="headrace",
            n=n,
        )
        self._outbox.add(record)

    async def run(self) -> None:
        """Publish until cancelled."""
        await self._outbox.run()

    async def _publish(self, records: Sequence[UsageRecord]) -> None:
        await self._usage.publish_usage(UsageRecords(records=records).SerializeToString())
