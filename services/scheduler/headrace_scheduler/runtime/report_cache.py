"""Keeps what leaderships that begin later need: the latest reports of workers and gateways, and the
weights of tenants."""

from __future__ import annotations

from headrace_scheduler.state.events import Event, GatewayReported, WeightsChanged, WorkerReported

MAX_CHANGES = 256
"""Reports kept of a worker, from the last full one on. More follow on one only if others were
lost, and such a worker counts as silent until its next full report."""


class ReportCache:
    """Bounded by the workers and gateways that reported within twice `kept_s`."""

    def __init__(self, *, kept_s: float) -> None:
        self._kept_s = kept_s
        self.listening_since_s = float("inf")
        """Since when all reports are received."""
        self._workers: dict[str, list[WorkerReported]] = {}
        self._gateways: dict[str, GatewayReported] = {}
        self._weights = WeightsChanged({})
        self._forgot_s = float("-inf")

    def add_worker_report(self, event: WorkerReported) -> None:
        worker_id = event.report.worker_id
        if not event.report.since:
            self._workers[worker_id] = [event]
        elif kept := self._workers.get(worker_id):
            kept.append(event)
            if len(kept) > MAX_CHANGES:
                del self._workers[worker_id]
        self._forget_at_times(event.received_s)

    def add_gateway_report(self, event: GatewayReported) -> None:
        self._gateways[event.report.gateway_id] = event
        self._forget_at_times(event.received_s)

    def set_weights(self, event: WeightsChanged) -> bool:
        """Keep the weights; return whether they have changed."""
        is_new, self._weights = event != self._weights, event
        return is_new

    def _forget_at_times(self, now_s: float) -> None:
        # Why not with every report: it examines all workers, and they report all the time.
        if now_s - self._forgot_s >= self._kept_s:
            self._forgot_s = now_s
            self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._kept_s
        self._workers = {i: e for i, e in self._workers.items() if e[-1].received_s >= oldest_s}
        self._gateways = {i: e for i, e in self._gateways.items() if e.received_s >= oldest_s}

    def recent(self, now_s: float) -> list[Event]:
        """Return the events that a new leader must apply first."""
        self._forget(now_s)
        workers = (event for kept in self._workers.values() for event in kept)
        weights = [self._weights] if self._weights.weights else []
        return [*weights, *workers, *self._gateways.values()]
