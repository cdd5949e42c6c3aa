"""A model that is not configured any more: what waits for it ends, what runs goes on."""

from __future__ import annotations

from headrace.errors import ModelNotFound
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    Dispatch,
    ModelRemoved,
    SendNotice,
    StoreResult,
)
from helpers.scheduler_events import Bench, gateway_reported, settled

PATIENT = SchedulerSettings(gateway_silence_s=600.0, worker_silence_s=600.0)


def test_what_waits_is_ended_as_unknown_and_nothing_is_left_once_that_is_settled() -> None:
    bench = Bench(PATIENT)
    bench.submit("a")
    bench.submit("b")
    assert not bench.machine.is_empty
    bench.apply(ModelRemoved())
    ended = bench.only(SendNotice).ended
    assert [request_id for request_id, _ in ended] == ["a", "b"]
    assert all(isinstance(error, ModelNotFound) for _, error in ended)
    bench.apply(settled("a", "b", code=5))
    assert bench.machine.is_empty


def test_what_runs_goes_on_to_its_end_and_what_comes_late_is_ended() -> None:
    bench = Bench(PATIENT)
    bench.worker(free=1, total=1)
    bench.submit("a")
    bench.accept()
    bench.apply(ModelRemoved())
    assert bench.machine.statistics()["running"] == 1
    bench.submit("b")
    assert [request_id for request_id, _ in bench.only(SendNotice).ended] == ["b"]
    bench.apply(settled("a"), settled("b", code=5))
    assert bench.machine.is_empty


def test_a_model_that_is_configured_again_takes_requests_again() -> None:
    bench = Bench(PATIENT)
    bench.apply(ModelRemoved())
    bench.apply(ModelRemoved(False))
    bench.worker()
    bench.submit("a")
    assert bench.only(Dispatch).message.requests[0].request_id == "a"


def test_of_requests_without_a_gateway_the_ends_are_kept() -> None:
    bench = Bench(PATIENT)
    bench.submit("a", detached=True)
    bench.submit("b", attachable=True)
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(ModelRemoved())
    concluded = {each.record.request_id: each.error for each in bench.given(StoreResult)}
    assert concluded.keys() == {"a", "b"}
    assert isinstance(concluded["a"], ModelNotFound)
    assert bench.machine.is_empty
