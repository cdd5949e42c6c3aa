"""Dispatches that a worker does not answer in time."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    Dispatch,
    DispatchUnanswered,
    PublishDeadLetter,
    SendNotice,
)
from helpers.scheduler_events import EPOCH, Bench, answer, lost, point


def redispatched(bench: Bench) -> RequestRecord:
    return bench.only(Dispatch).message.requests[0]


def unanswered(number: int = 1) -> tuple[Bench, Dispatch]:
    """A bench whose worker has sent this report, and has not answered the dispatch of `a`."""
    bench = Bench()
    bench.worker(number=number)
    bench.submit("a")
    dispatch = bench.only(Dispatch)
    bench.apply(DispatchUnanswered(dispatch.worker_id, dispatch.number))
    return bench, dispatch


def test_an_unanswered_dispatch_is_fenced_before_the_next_attempt() -> None:
    bench, dispatch = unanswered()
    assert bench.commands == [], "not before it is known whether the worker lives"
    bench.worker(number=2)
    attempt = dispatch.message.requests[0].attempt
    assert bench.only(SendNotice).fences == (("a", attempt),)
    bench.apply(answer(bench.only(SendNotice), point("a", 0)))
    assert redispatched(bench).failures == 0


def test_a_dispatch_that_no_process_received_costs_nothing() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    dispatch = bench.only(Dispatch)
    bench.apply(DispatchUnanswered("w", dispatch.number, is_disconnected=True))
    assert bench.commands == [], "not to a worker that is not connected"
    bench.worker("w2")
    again = bench.only(Dispatch)
    assert (again.worker_id, redispatched(bench).failures) == ("w2", 0)


def test_nothing_is_dispatched_to_a_worker_whose_stream_broke_before_it_reports_again() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    attempt = redispatched(bench).attempt
    bench.accept()
    bench.apply(lost("w", point("a", attempt)))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt)))
    assert bench.given(Dispatch) == []
    bench.worker(number=2)
    assert redispatched(bench).failures == 1


def test_a_late_timeout_says_nothing_of_a_worker_that_has_come_back() -> None:
    bench = Bench(SchedulerSettings(gateway_silence_s=60.0))
    bench.worker()
    bench.submit("a")
    first = bench.only(Dispatch)
    bench.after(3.1)  # the worker is dropped as silent
    bench.apply(answer(bench.only(SendNotice), point("a", 1 << 30)))
    bench.worker(number=2)
    second = bench.only(Dispatch)
    for is_disconnected in (False, True):
        bench.apply(DispatchUnanswered("w", first.number, is_disconnected))
        bench.worker(number=3 + is_disconnected)
        bench.submit(f"b{is_disconnected}")
        assert bench.given(Dispatch) == [], "the answer to the second dispatch is awaited"
    bench.apply(DispatchUnanswered("w", second.number))
    bench.worker(number=5)
    assert bench.only(SendNotice).fences[0][0] == "a"


def test_a_worker_that_has_not_answered_has_no_room_before_its_next_report() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.apply(DispatchUnanswered("w", bench.only(Dispatch).number))
    assert bench.machine.fleet_statistics() == (1, 0)


def test_a_report_that_is_ignored_shows_nothing_of_an_unanswered_dispatch() -> None:
    bench, dispatch = unanswered(number=5)
    bench.worker(number=4)
    bench.worker(number=9, since=7)
    assert bench.commands == []
    running = {"a": dispatch.message.requests[0].attempt}
    bench.worker(number=10, running=running, counted=(EPOCH, dispatch.number))
    assert bench.given(SendNotice) == []


def test_a_request_goes_on_where_only_the_answer_to_its_dispatch_was_lost() -> None:
    bench, dispatch = unanswered()
    attempt = dispatch.message.requests[0].attempt
    bench.worker(number=2, running={"a": attempt}, counted=(EPOCH, dispatch.number))
    bench.submit("b")
    assert bench.only(Dispatch).message.requests[0].request_id == "b"
    found = bench.machine.find("a")
    assert found is not None
    assert (found.is_running, found.record.attempt) == (True, attempt)


def test_a_request_that_ends_every_worker_before_it_answers_is_a_dead_letter() -> None:
    bench = Bench(SchedulerSettings(max_attempts=3, gateway_silence_s=60.0))
    bench.submit("a")
    for number in range(3):
        bench.worker(f"worker-{number}")
        dispatch = bench.only(Dispatch)
        bench.after(2.0)
        bench.apply(DispatchUnanswered(dispatch.worker_id, dispatch.number))
        bench.after(1.1)  # the worker has been silent for longer than `worker_silence_s`
        bench.apply(answer(bench.only(SendNotice), point("a", 0)))
    reason = bench.only(PublishDeadLetter).reason
    assert reason == "failed on 3 attempts; the last: worker worker-2 fell silent"


def test_an_unanswered_dispatch_leaves_no_room_taken() -> None:
    bench = Bench()
    bench.worker(free=1, total=1)
    bench.submit("a")
    bench.apply(DispatchUnanswered("w", bench.only(Dispatch).number))
    bench.settle("a", code=1)
    bench.worker(number=2, free=1, total=1)
    bench.submit("b")
    assert redispatched(bench).request_id == "b"


def test_an_unanswered_dispatch_leaves_no_room_taken_by_what_was_settled_meanwhile() -> None:
    bench = Bench()
    bench.worker(free=1, total=1)
    bench.submit("a")
    number = bench.only(Dispatch).number
    bench.settle("a", code=1)
    bench.apply(DispatchUnanswered("w", number))
    bench.worker(number=2, free=1, total=1)
    bench.submit("b")
    assert redispatched(bench).request_id == "b"
