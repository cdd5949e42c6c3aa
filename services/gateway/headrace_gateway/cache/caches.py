"""The caches of a gateway, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.auth.peppers import Peppers
from headrace.bus import Bus
from headrace.clock import Clock
from headrace.credentials.secret_files import SecretFile
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.hits import CacheHits
from headrace_gateway.cache.responses import ResponseCache
from headrace_gateway.cache.vectors import VectorCache
from headrace_gateway.quota.limits import Rows
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.stream.open_requests import OpenRequests

_PURPOSE = "keys of the response cache"


class Caches:
    def __init__(
        self,
        settings: GatewaySettings,
        bus: Bus,
        clock: Clock,
        gateway_id: str,
        requests: OpenRequests,
        *,
        quotas: Quotas,
        rows: Rows,
    ) -> None:
        self._hits = hits = CacheHits(bus, gateway_id, clock)
        self.responses = ResponseCache(
            settings,
            bus,
            clock,
            requests,
            quotas=quotas,
            rows=rows,
            hits=hits,
            secret=_secret(settings),
        )
        self.vectors = VectorCache(settings, clock, quotas=quotas, rows=rows, hits=hits)

    def forget(self, model: str) -> None:
        """Remove all that is cached of a model: its weights are others now, or it is removed."""
        self.responses.forget(model)
        self.vectors.forget(model)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hits.run())
            tasks.create_task(self.responses.run())


def _secret(settings: GatewaySettings) -> Callable[[], bytes]:
    """Return the mesh's secret, of its current pepper; without keys, callers have no secrets from
    one another."""
    if settings.peppers_file is None:
        return lambda: _PURPOSE.encode()
    peppers = SecretFile(settings.peppers_file, Peppers.parse)
    return lambda: peppers.value().digest(_PURPOSE).digest
