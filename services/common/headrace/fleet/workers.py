"""Pure: the workers that report, and the models that they serve."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import WorkerReport
from headrace.v1 import fleet_pb2

ALIVE_S = 3.0
"""A worker whose last report is older is taken for dead."""


@dataclass(slots=True)
class _Reported:
    report: WorkerReport
    received_s: float


class FleetView:
    def __init__(self) -> None:
        self._workers: dict[str, _Reported] = {}

    def take(self, report: WorkerReport, now_s: float) -> None:
        """Store a worker's report; ignore a late one, and drop workers that are silent."""
        seen = self._workers.get(report.worker_id)
        if seen is not None and report.number < seen.report.number:
            return
        if report.leaving:
            self._workers.pop(report.worker_id, None)
        else:
            self._workers[report.worker_id] = _Reported(report, now_s)
        for worker_id in [w for w, h in self._workers.items() if now_s - h.received_s > ALIVE_S]:
            del self._workers[worker_id]

    def serving(self, model: str, now_s: float) -> int:
        """Return how many workers serve a model and are not draining."""
        return len(self.cards(model, now_s))

    def cards(self, model: str, now_s: float) -> list[ModelCard]:
        """Return a model's cards: one of each worker that serves it and is not draining."""
        return [
            served.card
            for report in self._alive(now_s)
            if not report.draining
            for served in report.models
            if served.card.model == model
        ]

    def workers(self, now_s: float) -> list[fleet_pb2.Worker]:
        """Return the workers that are alive, by name."""
        return [
            _as_worker(report)
            for report in sorted(self._alive(now_s), key=lambda r: (r.name, r.worker_id))
        ]

    def output_tokens_per_s(self, now_s: float) -> dict[str, float]:
        """Return what each worker that is alive generates, by its id: over its last seconds."""
        return {
            report.worker_id: sum(served.output_tokens_per_s for served in report.models)
            for report in self._alive(now_s)
        }

    def _alive(self, now_s: float) -> list[WorkerReport]:
        return [h.report for h in self._workers.values() if now_s - h.received_s <= ALIVE_S]


def _as_worker(report: WorkerReport) -> fleet_pb2.Worker:
    return fleet_pb2.Worker(
        worker_id=report.worker_id,
        name=report.name,
        models=sorted(served.card.model for served in report.models),
        total_slots=sum(served.total_slots for served in report.models),
        free_slots=sum(served.free_slots for served in report.models),
        draining=report.draining,
        running=sum(served.running_requests for served in report.models),
    )
