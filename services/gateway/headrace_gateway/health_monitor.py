"""Reports to Envoy, by grpc.health.v1, whether this gateway can admit requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from grpc_health.v1 import health

from headrace.rpc.server import set_serving
from headrace_gateway.api.probes.health import Health, ModelState
from headrace_gateway.base import metrics
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.wiring import Mesh

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.25
FIRST_CARD_S = 1.0
"""A mesh whose model cards have not arrived by then has no models."""
FIRST_LOADING_S = 10.0
"""A model that is still loading by then is not waited for: its tokenizer may never arrive."""


class HealthMonitor:
    """Observes the mesh side and the models."""

    def __init__(
        self, mesh: Mesh, catalog: Catalog, access_problem: Callable[[], str | None]
    ) -> None:
        """`access_problem` returns why callers cannot be checked yet."""
        self._mesh = mesh
        self._catalog, self._access_problem = catalog, access_problem
        self._leaving = False
        self._began_s = mesh.clock.monotonic_s()
        self._starting = True
        self.last = Health(leaving=False, broker_connected=True, starting=True)
        """At most `CHECK_INTERVAL_S` old; for other threads."""

    def shut_down(self) -> None:
        """Report from now on that the gateway is shutting down."""
        self._leaving = True
        self.last = self.observe()

    def observe(self) -> Health:
        """Return the current health; call it on the event loop's thread."""
        now_s = self._mesh.clock.monotonic_s()
        models = dict.fromkeys(self._catalog.loading(), ModelState.LOADING)
        for served in self._catalog.all():
            serving = self._mesh.fleet.serving(served.card.model, now_s)
            state = ModelState.READY if serving else ModelState.NO_WORKER
            models[served.card.model] = state
        return Health(
            leaving=self._leaving,
            broker_connected=self._mesh.bus.connected,
            access_problem=self._access_problem() or "",
            broker_fault=self._mesh.bus.fault,
            starting=self._still_starting(now_s),
            models=dict(sorted(models.items())),
            unannounced=frozenset(self._catalog.unannounced().values()),
            unusable=self._catalog.unusable(),
            leader_age_s=self._mesh.lanes.age_s(now_s),
            token_age_s=self._mesh.last_token.age_s(),
            window_s=self._mesh.settings.ready_window_s,
        )

    def _still_starting(self, now_s: float) -> bool:
        age_s = now_s - self._began_s
        has_loaded = not self._catalog.loading()
        has_all = has_loaded and (bool(self._catalog.all()) or age_s >= FIRST_CARD_S)
        self._starting = self._starting and not has_all and age_s < FIRST_LOADING_S
        return self._starting

    async def run(self, servicer: health.aio.HealthServicer, services: Iterable[str]) -> None:
        """Keep the health service and the metric up to date. Until cancelled."""
        names = tuple(services)
        was_healthy: bool | None = None
        while True:
            self.last = self.observe()
            problem = self.last.problem
            if was_healthy is not (problem is None):
                was_healthy = problem is None
                await self._report(servicer, names, problem)
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _report(
        self, servicer: health.aio.HealthServicer, names: tuple[str, ...], problem: str | None
    ) -> None:
        await set_serving(servicer, names, serving=problem is None)
        metrics.healthy.set(problem is None)
        if problem is None:
            log.info("gateway.healthy")
        else:
            log.warning("gateway.unhealthy", extra={"reason": problem})
