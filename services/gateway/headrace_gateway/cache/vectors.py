"""The cache of vectors: in the memory of one gateway, by tenant, weights and tokens of an input."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.clock import Clock
from headrace.internal.v1.usage_pb2 import UsageKind
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.hits import CacheHits
from headrace_gateway.cache.keys import vector_key
from headrace_gateway.cache.lru import BoundedCache
from headrace_gateway.quota.call_limits import BYPASS, HIT, MISS, note_cache
from headrace_gateway.quota.limits import Rows
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.request.generation import Input, ValidRequest
from headrace_gateway.request.tasks import task_of


class VectorCache:
    """Vectors of inputs that were computed before. One that is found may differ in its last bits
    from one that is computed now, beside other inputs; either is right."""

    def __init__(
        self,
        settings: GatewaySettings,
        clock: Clock,
        *,
        quotas: Quotas,
        rows: Rows,
        hits: CacheHits,
    ) -> None:
        self._clock, self._quotas, self._rows, self._hits = clock, quotas, rows, hits
        self._max_bytes = settings.embedding_cache_bytes
        self._memory = BoundedCache[bytes, bytes](self._max_bytes, settings.response_cache_ttl_s)

    @property
    def unix_s(self) -> float:
        return self._clock.unix_s()

    def may_have(self, tenant_name: str) -> bool:
        tenant = self._rows.tenant(tenant_name)
        allowed = tenant is not None and tenant.row.response_cache and self._max_bytes > 0
        if not allowed:
            note_cache(BYPASS)
            metrics.cache_lookups_total.labels("embedding", BYPASS).inc()
        return allowed

    def find(self, request: ValidRequest, inputs: Sequence[Input]) -> list[bytes | None]:
        """Return the vector of each input; None of those that are not here.

        Args:
            request: with the tenant and the model.
        """
        now_s = self._clock.monotonic_s()
        found = [self._memory.get(vector_key(request, each), now_s) for each in inputs]
        count = sum(vector is not None for vector in found)
        metrics.cache_lookups_total.labels("embedding", HIT).inc(count)
        metrics.cache_lookups_total.labels("embedding", MISS).inc(len(found) - count)
        note_cache(HIT if count == len(found) else MISS)
        return found

    def keep(
        self, request: ValidRequest, inputs: Sequence[Input], vectors: Sequence[bytes]
    ) -> None:
        now_s, model = self._clock.monotonic_s(), request.card.model
        for each, vector in zip(inputs, vectors, strict=True):
            key = vector_key(request, each)
            self._memory.put(key, vector, len(vector), group=model, now_s=now_s)
        metrics.cache_bytes.labels("embedding").set(self._memory.stored_bytes)

    async def count(self, request: ValidRequest, count: int, *, whole: bool) -> None:
        """Record that so many inputs came from here.

        Args:
            whole: all of the call: then it is a request that no lane has, and is counted here.

        Raises:
            HeadraceError: the caller's limits admit no other request.
        """
        reservation_id = await self._quotas.count_request(request) if whole else ""
        scores = task_of(request.card) == ModelTask.MODEL_TASK_SCORE
        kind = UsageKind.USAGE_KIND_RERANK if scores else UsageKind.USAGE_KIND_EMBEDDINGS
        self._hits.add(request, kind=kind, n=count, reservation_id=reservation_id)

    def forget(self, model: str) -> None:
        """Remove all vectors of a model."""
        self._memory.remove_group(model)
        metrics.cache_bytes.labels("embedding").set(self._memory.stored_bytes)
