"""Deadlines and patience."""

from __future__ import annotations

import pytest

from headrace.errors import DeadlineExceeded, HeadraceError, NoWorker, PatienceExhausted
from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import CancelOnWorker, Dispatch, SendNotice
from helpers.scheduler_events import Bench, answer, point

PATIENT = SchedulerSettings(gateway_silence_s=600.0, worker_silence_s=600.0)


def error_of(bench: Bench) -> HeadraceError:
    ((_, error),) = bench.only(SendNotice).ended
    return error


def test_a_request_whose_deadline_passes_while_it_waits_is_not_run() -> None:
    bench = Bench(PATIENT)
    bench.submit("a", deadline_s=110.0)
    assert bench.after(9.9) == []
    bench.after(0.2)
    assert isinstance(error_of(bench), DeadlineExceeded)


def test_a_running_request_is_ended_from_here_if_its_worker_did_not() -> None:
    bench = Bench(PATIENT)
    bench.worker()
    bench.submit("a", deadline_s=110.0)
    bench.accept()
    assert bench.after(10.9) == []
    bench.after(0.2)
    assert isinstance(error_of(bench), DeadlineExceeded)
    assert bench.only(CancelOnWorker).code == 4


def test_a_dispatch_has_the_time_left_and_no_time_of_day() -> None:
    bench = Bench(PATIENT)
    bench.submit("a", deadline_s=110.0)
    bench.submit("b")
    bench.after(4.0)
    bench.worker()
    assert list(bench.only(Dispatch).message.seconds_left) == [6.0, float("inf")]


def test_a_lost_request_past_its_deadline_is_ended() -> None:
    bench = Bench(PATIENT)
    bench.worker()
    bench.submit("a", deadline_s=110.0)
    bench.accept()
    bench.worker(number=2, leaving=True)
    bench.after(10.1)
    assert bench.machine.statistics()["ending"] == 1


def test_patience_without_any_worker_ends_for_want_of_one() -> None:
    bench = Bench(PATIENT)
    bench.submit("a", queue_deadline_s=105.0)
    bench.after(5.1)
    assert isinstance(error_of(bench), NoWorker)


def test_patience_with_busy_workers_ends_for_want_of_time() -> None:
    bench = Bench(PATIENT)
    bench.worker(free=0)
    bench.submit("a", queue_deadline_s=105.0)
    bench.after(5.1)
    error = error_of(bench)
    assert isinstance(error, PatienceExhausted)
    assert error.retry_after_s is not None


def test_patience_is_for_the_first_dispatch_only() -> None:
    bench = Bench(PATIENT)
    bench.worker()
    bench.submit("a", queue_deadline_s=105.0)
    bench.accept()
    assert bench.after(60.0) == []


def test_patience_does_not_end_a_request_that_has_started_and_waits_again() -> None:
    bench = Bench(PATIENT)
    bench.worker()
    bench.submit("a", queue_deadline_s=105.0)
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    bench.worker(number=2, running={"a": attempt}, free=3)
    bench.worker(number=3, leaving=True)
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [5, 6])))
    assert bench.machine.statistics()["waiting"] == 1
    assert bench.after(60.0) == []
    assert bench.machine.statistics()["waiting"] == 1


def test_patience_goes_on_where_a_worker_refused() -> None:
    bench = Bench(PATIENT)
    bench.worker()
    bench.submit("a", queue_deadline_s=105.0)
    bench.refuse(DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL)
    bench.after(5.1)
    assert isinstance(error_of(bench), PatienceExhausted)


def test_a_request_waits_for_a_fuller_batch_no_longer_than_the_setting() -> None:
    bench = Bench(SchedulerSettings(max_batch_wait_s=0.01))
    bench.worker()
    assert bench.submit("a") == []
    assert bench.machine.next_due_s() == pytest.approx(100.01)
    bench.after(0.011)
    assert bench.given(Dispatch)


def test_appointments_of_requests_that_are_gone_do_not_pile_up() -> None:
    bench = Bench(PATIENT)
    for i in range(3000):
        bench.submit(f"r{i}", deadline_s=10_000.0)
        bench.settle(f"r{i}", code=1)
    assert bench.machine.statistics()["timers"] <= 1001
