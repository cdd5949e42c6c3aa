"""From its lane to a worker to its end, when nothing goes wrong; and what is refused."""

from __future__ import annotations

import pytest

from headrace.errors import EngineFailed, InvalidRequest, LaneFull, RequestCancelled, RequestExists
from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause as Cause
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import first_attempt
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelOnWorker,
    CancelRequested,
    Dispatch,
    SendNotice,
    StepDown,
)
from helpers.scheduler_events import EPOCH, Bench, answer, reported, submitted


def test_a_lone_request_is_dispatched_by_the_event_that_brings_it() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    dispatch = bench.only(Dispatch)
    assert [r.request_id for r in dispatch.message.requests] == ["a"]
    assert dispatch.message.epoch == EPOCH
    assert dispatch.message.requests[0].attempt == first_attempt(EPOCH) + 1


def test_a_settled_request_is_acknowledged_and_forgotten() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    assert bench.settle("a") == [Acknowledge("a", "standard", "ack 1")]
    assert bench.settle("a") == []
    assert bench.machine.find("a") is None


def test_a_dispatched_request_takes_its_slots_until_a_report_counts_it() -> None:
    bench = Bench()
    bench.worker(free=4, total=4)
    bench.submit("a", n=3)
    bench.accept()
    assert bench.submit("b", n=2) == []
    bench.worker(number=2, free=4, counted=(0, 0))
    assert bench.given(Dispatch) == [], "the report is from before the dispatch"
    bench.worker(number=3, free=4, counted=(EPOCH, 1))
    assert [r.request_id for r in bench.only(Dispatch).message.requests] == ["b"]


def test_a_report_that_overtook_a_later_one_is_ignored() -> None:
    bench = Bench()
    bench.worker(number=5, free=0)
    bench.submit("a")
    assert bench.worker(number=4, free=4) == []
    assert bench.observer.counts["ignored: late report"] == 1


def test_requests_that_come_while_a_worker_answers_leave_as_a_batch() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    first = bench.commands
    assert bench.submit("b") == []
    assert bench.submit("c") == []
    bench.commands = first
    bench.accept()
    assert [r.request_id for r in bench.only(Dispatch).message.requests] == ["b", "c"]


def test_a_burst_is_shared_between_workers_by_their_room() -> None:
    bench = Bench()
    bench.apply(
        reported("w1", 1, received_s=100.0, free=2, total=2),
        reported("w2", 1, received_s=100.0, free=6, total=6),
    )
    bench.submit(*"abcd")
    sizes = {d.worker_id: len(d.message.requests) for d in bench.given(Dispatch)}
    assert sizes == {"w1": 1, "w2": 3}


def test_a_request_waits_for_a_worker_with_its_weights() -> None:
    bench = Bench()
    bench.worker("w1", digest="old")
    assert bench.submit("a", digest="new") == []
    bench.worker("w2", digest="new")
    assert bench.only(Dispatch).worker_id == "w2"


@pytest.mark.parametrize(
    "cause",
    [
        Cause.DISPATCH_REFUSAL_CAUSE_FULL,
        Cause.DISPATCH_REFUSAL_CAUSE_DRAINING,
        Cause.DISPATCH_REFUSAL_CAUSE_WRONG_MODEL,
        Cause.DISPATCH_REFUSAL_CAUSE_UNSPECIFIED,
    ],
)
def test_a_refused_request_keeps_its_place_and_waits_for_the_next_report(
    cause: Cause.ValueType,
) -> None:
    bench = Bench(SchedulerSettings(max_batch_requests=1))
    bench.worker()
    bench.submit("a", "b")
    before = bench.only(Dispatch).message.requests[0].attempt
    assert bench.refuse(cause) == [], "no hot loop against a worker that refuses"
    bench.worker(number=2, counted=(EPOCH, 1))
    again = bench.only(Dispatch).message.requests[0]
    assert again.request_id == "a"
    assert again.attempt > before


def test_a_request_that_runs_nowhere_ends_as_invalid() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.refuse(Cause.DISPATCH_REFUSAL_CAUSE_INVALID)
    ((request_id, error),) = bench.only(SendNotice).ended
    assert request_id == "a"
    assert isinstance(error, InvalidRequest)


def test_a_request_that_no_worker_can_resume_fails_and_names_its_last_failure() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.refuse(Cause.DISPATCH_REFUSAL_CAUSE_NOT_RESUMABLE)
    ((request_id, error),) = bench.only(SendNotice).ended
    assert (request_id, type(error), str(error)) == ("a", EngineFailed, "no")


def test_a_worker_that_knows_a_newer_leader_ends_the_leadership() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.refuse(Cause.DISPATCH_REFUSAL_CAUSE_STALE_LEADER)
    assert bench.only(StepDown)


def test_a_report_of_a_dispatch_by_a_newer_leader_ends_the_leadership() -> None:
    bench = Bench()
    bench.worker(counted=(EPOCH + 1, 1))
    assert bench.only(StepDown)


def test_a_lane_takes_exactly_as_many_as_its_bound() -> None:
    bench = Bench(SchedulerSettings(max_waiting=20))
    bench.worker(free=0)
    bench.submit(*(f"r{i}" for i in range(200)))
    assert bench.machine.statistics()["waiting"] == 20
    assert bench.observer.counts["ended: LANE_FULL"] == 180


def test_a_refusal_has_a_retry_time() -> None:
    bench = Bench(SchedulerSettings(max_waiting=0))
    bench.submit("a")
    ((_, error),) = bench.only(SendNotice).ended
    assert isinstance(error, LaneFull)
    assert error.retry_after_s == 1.0


def test_requests_for_free_slots_are_not_counted_against_the_bound() -> None:
    bench = Bench(SchedulerSettings(max_waiting=1))
    bench.worker(free=4)
    bench.submit(*"abcdef")
    assert bench.observer.counts["ended: LANE_FULL"] == 1


def test_the_notice_of_an_end_is_repeated_until_it_is_settled() -> None:
    bench = Bench(SchedulerSettings(max_waiting=0, notice_repeat_s=1.0))
    bench.submit("a")
    notice = bench.only(SendNotice)
    assert bench.apply(answer(notice)) == []
    assert bench.after(0.9) == []
    bench.after(0.2)
    assert bench.only(SendNotice).ended == notice.ended
    bench.settle("a", code=8)
    assert bench.only(Acknowledge).request_id == "a"


def test_an_end_that_its_gateway_does_not_know_is_over() -> None:
    bench = Bench(SchedulerSettings(max_waiting=0))
    bench.submit("a")
    bench.apply(answer(bench.only(SendNotice), unknown=["a"]))
    assert bench.only(Acknowledge).request_id == "a"


def test_a_waiting_request_can_be_cancelled() -> None:
    bench = Bench()
    bench.submit("a")
    bench.apply(CancelRequested("a"))
    ((_, error),) = bench.only(SendNotice).ended
    assert isinstance(error, RequestCancelled)


def test_a_running_request_that_is_cancelled_is_stopped_on_its_worker() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    bench.apply(CancelRequested("a"))
    assert bench.only(CancelOnWorker).worker_id == "w"
    assert bench.only(SendNotice)
    assert bench.apply(CancelRequested("a")) == [], "once is enough"


def test_a_request_that_its_client_left_is_stopped_on_its_worker() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    bench.settle("a", code=1)
    assert bench.only(CancelOnWorker).request_id == "a"
    assert bench.only(Acknowledge)


def test_a_message_that_is_delivered_twice_is_one_request() -> None:
    bench = Bench()
    bench.apply(submitted("a", 1))
    assert bench.apply(submitted("a", 1)) == []
    assert bench.apply(submitted("a", 2)) == [Acknowledge("a", "standard", "ack 2")]
    bench.settle("a")
    assert bench.apply(submitted("a", 1)) == [Acknowledge("a", "standard", "ack 1")]


def test_another_gateways_request_of_an_open_id_is_refused_there() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    bench.apply(submitted("a", 2, gateway="other"))
    notice = bench.only(SendNotice)
    assert notice.gateway_id == "other"
    assert [(i, e.reason) for i, e in notice.ended] == [("a", "REQUEST_EXISTS")]
    assert bench.machine.statistics()["running"] == 1


def test_an_id_may_be_used_again_after_its_request_was_settled() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    bench.settle("a")
    bench.worker(number=2, counted=(EPOCH, 1))
    bench.submit("a")
    assert bench.only(Dispatch)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("code", [0, 13])
def test_a_name_is_run_once_though_its_second_message_is_read_after_the_end(
    detached: bool, code: int
) -> None:
    """Its gateway had looked before the first came. What failed may run again, unless detached."""
    bench = Bench()
    bench.worker(free=4)
    bench.submit("name", once=True, detached=detached)
    bench.accept()
    bench.settle("name", code=code)
    bench.submit("name", once=True, detached=detached, gateway="other")
    if code and not detached:
        assert [r.request_id for d in bench.given(Dispatch) for r in d.message.requests] == ["name"]
        return
    assert bench.given(Dispatch) == []
    (end,) = bench.only(SendNotice).ended
    assert (end[0], type(end[1])) == ("name", RequestExists)
    assert bench.only(Acknowledge).request_id == "name"
    bench.now_s += 601.0  # Its result is gone; so the name is free.
    bench.worker(number=2, free=4, counted=(EPOCH, 1))
    bench.submit("name", once=True, detached=detached)
    assert len(bench.given(Dispatch)) == 1


def test_the_message_of_an_id_that_comes_again_is_ignored() -> None:
    bench = Bench()
    bench.worker(free=4)
    bench.submit("name", once=True)
    bench.accept()
    bench.settle("name")
    bench.apply(submitted("name", 1, once=True))
    assert bench.given(SendNotice) == []
