"""All models of one scheduler process: it takes part in the leader election of each."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from headrace.auth.tables import AccessTables
from headrace.bus import Bus, Subscription
from headrace.bus.subjects import GATEWAY_REPORTS, PREFIX_REPORTS, TENANTS_TABLE, WORKER_REPORTS
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import GatewayReport, PrefixReport, WorkerReport
from headrace.model_names import invalid_reason, lane_id
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.runtime.election import LeaderElection
from headrace_scheduler.runtime.report_cache import ReportCache
from headrace_scheduler.state.events import (
    GatewayReported,
    PrefixesReported,
    WeightsChanged,
    WorkerReported,
)

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class Service:
    """Receives reports and model cards, and starts an election for every model in them."""

    def __init__(
        self, scheduler_id: str, bus: Bus, settings: SchedulerSettings, clock: Clock
    ) -> None:
        self._scheduler_id = scheduler_id
        self._bus, self._settings, self._clock = bus, settings, clock
        kept_s = max(settings.worker_silence_s, settings.gateway_silence_s)
        self._report_cache = ReportCache(kept_s=kept_s)
        self._tenants = AccessTables(bus, clock, [TENANTS_TABLE])
        self._elections: dict[str, LeaderElection] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        """Tasks of the elections, by model."""
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def why_not_ready(self) -> str | None:
        """None if it is connected, and leads every known model or knows that it is led."""
        if not self._bus.connected:
            return "out of reach of NATS"
        unled = [m for m, c in list(self._elections.items()) if not c.knows_leader]
        return f"no leader is known of {', '.join(sorted(unled))}" if unled else None

    def leads(self, model: str) -> bool:
        election = self._elections.get(model)
        return election is not None and election.leader is not None

    async def run(self) -> None:
        """Serve until cancelled; then release all leases."""
        async with self._tenants.watching(self._on_tenants), asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            subscriptions: list[Subscription] = [
                await self._bus.subscribe(WORKER_REPORTS, self._on_worker_report),
                await self._bus.subscribe(GATEWAY_REPORTS, self._on_gateway_report),
                await self._bus.subscribe(PREFIX_REPORTS, self._on_prefix_report),
            ]
            self._report_cache.listening_since_s = self._clock.monotonic_s()
            subscriptions.append(await self._bus.watch_cards(self._on_card))
            recheck_cancelled()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                for subscription in subscriptions:
                    await subscription.close()

    async def drain(self) -> None:
        """Wait until acknowledgements are confirmed; call before cancelling `run`."""
        leaders = [c.leader for c in self._elections.values() if c.leader is not None]
        await asyncio.gather(*(leader.drain() for leader in leaders))

    def _on_card(self, lane: str, payload: bytes) -> None:
        if not payload:
            self._forget(lane)
            return
        if (card := _decoded(ModelCard, payload, "model card")) is None:
            return
        self._start_election(card.model)
        if (election := self._elections.get(card.model)) is not None:
            election.on_card(payload, removed=card.removed)

    def _forget(self, lane: str) -> None:
        """End the election of a model whose card was deleted; a worker may bring it back."""
        for model in [m for m, c in self._elections.items() if c.removed and lane_id(m) == lane]:
            del self._elections[model]
            self._runs.pop(model).cancel()
            log.info("model.removed", extra={"model": model})

    def _on_worker_report(self, payload: bytes) -> None:
        if (report := _decoded(WorkerReport, payload, "worker report")) is not None:
            event = WorkerReported(report, self._clock.monotonic_s())
            self._report_cache.add_worker_report(event)
            for served in report.models:
                self._start_election(served.card.model)
            self._forward_to_leaders(event)

    def _on_gateway_report(self, payload: bytes) -> None:
        if (report := _decoded(GatewayReport, payload, "gateway report")) is not None:
            event = GatewayReported(report, self._clock.monotonic_s())
            self._report_cache.add_gateway_report(event)
            self._forward_to_leaders(event)

    def _on_prefix_report(self, payload: bytes) -> None:
        if (report := _decoded(PrefixReport, payload, "prefix report")) is not None:
            election = self._elections.get(report.model)
            if election is not None and election.leader is not None:
                election.leader.handle(PrefixesReported(report))

    def _on_tenants(self) -> None:
        event = WeightsChanged(self._tenants.weights())
        if self._report_cache.set_weights(event):
            self._forward_to_leaders(event)

    def _forward_to_leaders(self, event: WorkerReported | GatewayReported | WeightsChanged) -> None:
        for election in self._elections.values():
            if election.leader is not None:
                election.leader.handle(event)

    def _start_election(self, model: str) -> None:
        if model in self._elections or self._tasks is None:
            return
        if invalid_reason(model) is not None:
            metrics.unreadable.labels("model name").inc()
            return
        election = LeaderElection(
            model,
            self._scheduler_id,
            self._bus,
            self._settings,
            self._clock,
            self._report_cache,
        )
        self._elections[model] = election
        self._runs[model] = self._tasks.create_task(election.run())
        log.info("model.known", extra={"model": model})


def _decoded(message: type[M], payload: bytes, kind: str) -> M | None:
    """Return a message; None, and it is counted, if it cannot be decoded."""
    try:
        return message.FromString(payload)
    except DecodeError:
        metrics.unreadable.labels(kind).inc()
        return None
