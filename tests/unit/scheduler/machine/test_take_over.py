"""A new leader: what it adopts, what it fences, and what it leaves alone."""

from __future__ import annotations

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import first_attempt
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelOnWorker,
    Dispatch,
    ParkOnWorker,
    SendNotice,
)
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    answer,
    caught_up,
    gateway_reported,
    point,
    reported,
)

OLD = first_attempt(EPOCH - 1) + 3


def taken_over(**fields: object) -> Bench:
    """A bench that has read `a` from its lane and knows worker `w` from before."""
    bench = Bench(holding=True)
    bench.apply(reported("w", 1, received_s=99.9))
    bench.submit("a", **fields)
    return bench


def test_nothing_that_was_read_is_dispatched_before_the_workers_have_reported() -> None:
    bench = taken_over()
    assert bench.apply(*caught_up()) == []
    bench.worker(number=2)
    assert bench.given(Dispatch) == []
    assert bench.only(SendNotice).fences == (("a", first_attempt(EPOCH)),)


def test_what_runs_is_adopted_with_its_attempt() -> None:
    bench = taken_over()
    bench.worker(number=2, running={"a": OLD}, free=3)
    bench.apply(*caught_up())
    assert bench.given(Dispatch) == []
    assert bench.given(SendNotice) == []
    found = bench.machine.find("a")
    assert found is not None
    assert found.is_running
    assert found.record.attempt == OLD


def test_what_a_worker_reported_before_it_was_read_is_adopted() -> None:
    bench = Bench(holding=True)
    bench.worker(running={"a": OLD}, free=3)
    bench.apply(*caught_up())
    bench.submit("a")
    assert bench.observer.counts["adopted"] == 1


def test_what_no_worker_runs_continues_at_its_gateways_point() -> None:
    bench = taken_over()
    bench.apply(*caught_up())
    bench.worker(number=2)
    bench.apply(answer(bench.only(SendNotice), point("a", OLD, [1, 2])))
    record = bench.only(Dispatch).message.requests[0]
    assert record.attempt > first_attempt(EPOCH) > OLD
    assert list(record.progress[0].output_ids) == [1, 2]


def test_what_no_gateway_knows_is_not_run_again() -> None:
    bench = taken_over()
    bench.apply(*caught_up())
    bench.worker(number=2)
    bench.apply(answer(bench.only(SendNotice), unknown=["a"]))
    assert bench.only(Acknowledge).request_id == "a"


def test_a_silent_worker_is_awaited_no_longer_than_the_window() -> None:
    bench = taken_over()
    bench.apply(*caught_up())
    assert bench.after(1.4) == []
    bench.after(0.2)
    assert bench.only(SendNotice).fences


def test_a_lane_that_is_not_yet_read_to_its_end_is_waited_for() -> None:
    bench = taken_over()
    bench.worker(number=2)
    bench.apply(*caught_up()[:2])
    assert bench.machine.is_holding
    bench.apply(*caught_up()[2:])
    assert not bench.machine.is_holding


def test_a_request_read_during_a_take_over_is_not_refused() -> None:
    bench = Bench(SchedulerSettings(max_waiting=0), holding=True)
    bench.submit("a")
    bench.apply(*caught_up())
    assert bench.only(SendNotice).ended == ()


def test_a_settlement_that_comes_before_its_message_is_read_counts() -> None:
    bench = Bench(holding=True)
    assert bench.settle("a") == []
    bench.submit("a")
    assert bench.only(Acknowledge).request_id == "a"


def test_patience_of_a_request_that_never_ran_goes_on() -> None:
    bench = taken_over(queue_deadline_s=103.0)
    bench.apply(*caught_up())
    bench.worker(number=2, free=0)
    bench.apply(answer(bench.only(SendNotice), point("a", 0)))
    bench.now_s = 102.9
    bench.worker(number=3, free=0)
    assert bench.after(0.2) != []
    assert bench.observer.counts["ended: PATIENCE_EXHAUSTED"] == 1


def test_of_two_workers_that_run_it_the_newer_attempt_wins() -> None:
    bench = taken_over()
    bench.apply(reported("w", 2, received_s=100.0, running={"a": OLD}))
    bench.apply(reported("w2", 1, received_s=100.0, running={"a": OLD + 1}))
    found = bench.machine.find("a")
    assert found is not None
    assert bench.machine.worker_name(found) == "name of w2"
    bench.apply(reported("w", 3, received_s=100.0, running={"a": OLD}))
    cancel = bench.only(CancelOnWorker)
    assert (cancel.worker_id, cancel.attempt) == ("w", OLD)


def test_an_attempt_of_an_earlier_leader_that_turns_up_late_is_stopped() -> None:
    bench = taken_over()
    bench.apply(*caught_up())
    bench.worker(number=2)
    bench.apply(answer(bench.only(SendNotice), point("a", OLD)))
    bench.accept()
    bench.apply(reported("zombie", 1, received_s=100.0, running={"a": OLD}))
    assert bench.only(CancelOnWorker).worker_id == "zombie"


def test_an_unknown_request_is_cancelled_after_a_grace_time() -> None:
    bench = Bench()
    bench.worker(running={"ghost": OLD})
    bench.now_s += 29.0
    assert bench.worker(number=2, running={"ghost": OLD}) == []
    bench.now_s += 1.1
    bench.worker(number=3, running={"ghost": OLD})
    assert bench.only(CancelOnWorker).request_id == "ghost"


def test_an_attempt_of_before_another_gateway_took_it_over_is_parked_and_not_adopted() -> None:
    for is_reported_first in (True, False):
        bench = Bench(holding=True)
        moved = gateway_reported("h", received_s=100.0, taken_over={"a": OLD + 1})
        runs = reported("w", 1, received_s=100.0, running={"a": OLD}, free=3)
        bench.apply(moved)
        if is_reported_first:
            bench.apply(runs)
            bench.submit("a", attachable=True)
        else:
            bench.submit("a", attachable=True)
            bench.apply(runs)
        parked = bench.only(ParkOnWorker)
        assert (parked.worker_id, parked.attempt, parked.orphaned) == ("w", OLD, True)
        assert bench.observer.counts["adopted"] == 0
        bench.apply(*caught_up())
        assert bench.only(SendNotice).gateway_id == "h"


def test_an_attempt_of_since_another_gateway_took_it_over_is_adopted() -> None:
    for is_moved_first in (True, False):
        bench = Bench(holding=True)
        bench.submit("a", attachable=True)
        moved = gateway_reported("h", received_s=100.0, taken_over={"a": OLD - 1})
        runs = reported("w", 1, received_s=100.0, running={"a": OLD}, free=3)
        bench.apply(*((moved, runs) if is_moved_first else (runs, moved)))
        bench.apply(*caught_up())
        assert bench.given(SendNotice) == []
        assert bench.machine.statistics()["running"] == 1


def test_what_was_adopted_before_a_take_over_is_reported_is_fenced_by_the_new_gateway() -> None:
    bench = taken_over(attachable=True)
    bench.worker(number=2, running={"a": OLD}, free=3)
    bench.apply(gateway_reported("h", received_s=100.0, taken_over={"a": OLD + 1}))
    notice = bench.only(SendNotice)
    assert notice.gateway_id == "h"
    bench.apply(answer(notice, point("a", OLD + 1, [1, 2])))
    cancel = bench.only(CancelOnWorker)
    assert (cancel.worker_id, cancel.request_id) == ("w", "a")


def test_what_waits_as_its_former_gateway_knew_it_goes_on_as_the_new_one_does() -> None:
    bench = taken_over(attachable=True)
    bench.apply(*caught_up())
    bench.worker(number=2, free=0)
    bench.apply(answer(bench.only(SendNotice), point("a", OLD, [1])))
    assert bench.machine.statistics()["waiting"] == 1
    bench.apply(gateway_reported("h", received_s=100.0, taken_over={"a": OLD + 1}))
    notice = bench.only(SendNotice)
    assert notice.gateway_id == "h"
    bench.apply(answer(notice, point("a", OLD + 1, [1, 2])))
    bench.worker(number=3)
    (record,) = bench.only(Dispatch).message.requests
    assert (record.gateway_id, list(record.progress[0].output_ids)) == ("h", [1, 2])
