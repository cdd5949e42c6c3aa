"""Workers are as they last reported, for as long as they report."""

from __future__ import annotations

from headrace.fleet.workers import FleetView
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import ServedModel, WorkerReport


def report(worker_id: str, number: int = 1, *, free: int = 4, **more: bool) -> WorkerReport:
    served = ServedModel(
        card=ModelCard(model="toy"),
        total_slots=4,
        free_slots=free,
        running_requests=3,
    )
    name = worker_id.upper()
    return WorkerReport(worker_id=worker_id, name=name, number=number, models=[served], **more)


def test_workers_are_listed_by_name_with_their_slots() -> None:
    fleet = FleetView()
    fleet.take(report("b"), 0.0)
    fleet.take(report("a", free=1), 0.0)
    first, second = fleet.workers(1.0)
    assert (first.name, first.free_slots, first.total_slots, first.running) == ("A", 1, 4, 3)
    assert (second.name, list(second.models)) == ("B", ["toy"])


def test_a_worker_that_is_silent_for_three_seconds_is_not_listed() -> None:
    fleet = FleetView()
    fleet.take(report("a"), 0.0)
    assert fleet.serving("toy", 3.0) == 1
    assert fleet.serving("toy", 3.1) == 0
    assert fleet.workers(3.1) == []


def test_a_report_that_was_overtaken_is_ignored() -> None:
    fleet = FleetView()
    fleet.take(report("a", 2, free=1), 0.0)
    fleet.take(report("a", 1, free=4), 0.1)
    assert fleet.workers(0.2)[0].free_slots == 1


def test_a_worker_that_reports_that_it_leaves_is_not_listed() -> None:
    fleet = FleetView()
    fleet.take(report("a"), 0.0)
    fleet.take(report("a", 2, leaving=True), 0.1)
    assert fleet.workers(0.2) == []


def test_a_draining_worker_is_listed_and_does_not_count_as_serving() -> None:
    fleet = FleetView()
    fleet.take(report("a", draining=True), 0.0)
    assert fleet.workers(0.1)[0].draining
    assert fleet.serving("toy", 0.1) == 0


def test_rates_are_of_the_workers_that_are_alive_over_all_their_models() -> None:
    fleet = FleetView()
    models = [ServedModel(output_tokens_per_s=rate) for rate in (30.0, 12.5)]
    fleet.take(WorkerReport(worker_id="w", number=1, models=models), 0.0)
    assert fleet.output_tokens_per_s(3.0) == {"w": 42.5}
    assert fleet.output_tokens_per_s(3.1) == {}
