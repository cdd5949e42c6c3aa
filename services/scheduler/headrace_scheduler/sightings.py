"""The latest report of every worker and gateway, for leaderships that begin later."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import GatewayReport, WorkerReport
from headrace_scheduler.events import Event, GatewayReported, WorkerReported


class Sightings:
    """Bounded by who reported within `kept_s`."""

    def __init__(self, *, kept_s: float) -> None:
        self._kept_s = kept_s
        self._workers: dict[str, WorkerReported] = {}
        self._gateways: dict[str, GatewayReported] = {}

    def see_worker(self, event: WorkerReported) -> None:
        self._workers[event.report.worker_id] = event
        self._forget(event.heard_s)

    def see_gateway(self, event: GatewayReported) -> None:
        self._gateways[event.report.gateway_id] = event
        self._forget(event.heard_s)

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._kept_s
        self._workers = {i: e for i, e in self._workers.items() if e.heard_s >= oldest_s}
        self._gateways = {i: e for i, e in self._gateways.items() if e.heard_s >= oldest_s}

    def recent(self, now_s: float) -> list[Event]:
        """What a new leader is to be told first."""
        self._forget(now_s)
        return [*self._workers.values(), *self._gateways.values()]


def read_worker_report(payload: bytes, *, now_s: float) -> WorkerReported:
    """Raises google.protobuf.message.DecodeError."""
    return WorkerReported(WorkerReport.FromString(payload), heard_s=now_s)


def read_gateway_report(payload: bytes, *, now_s: float) -> GatewayReported:
    """Raises google.protobuf.message.DecodeError."""
    return GatewayReported(GatewayReport.FromString(payload), heard_s=now_s)
