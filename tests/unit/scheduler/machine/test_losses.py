"""Workers and gateways that fall silent, break, park or fail."""

from __future__ import annotations

from headrace.errors import AttemptsExhausted
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    Acknowledge,
    BusDown,
    CancelOnWorker,
    Dispatch,
    NoticeUnanswered,
    PublishDeadLetter,
    SendNotice,
)
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    answer,
    gateway_reported,
    lost,
    parked,
    point,
    reported,
)


def running(settings: SchedulerSettings | None = None, **fields: object) -> tuple[Bench, int]:
    """A bench on which request `a` runs on worker `w`; and its attempt."""
    bench = Bench(settings)
    bench.worker()
    bench.submit("a", **fields)
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    return bench, attempt


def redispatched(bench: Bench) -> RequestRecord:
    return bench.only(Dispatch).message.requests[0]


def test_a_silent_workers_request_is_fenced_and_continues_with_what_its_client_has() -> None:
    bench, attempt = running(n=2)
    bench.apply(gateway_reported(received_s=102.0))
    bench.after(3.1)
    notice = bench.only(SendNotice)
    assert notice.fences == (("a", attempt),)
    bench.worker("w2")
    assert bench.given(Dispatch) == [], "not before its gateway has fenced"
    bench.apply(answer(notice, point("a", attempt, [1, 2], [3])))
    record = redispatched(bench)
    assert record.attempt > attempt
    assert [list(p.output_ids) for p in record.progress] == [[1, 2], [3]]
    assert record.failures == 1


def test_a_returned_request_comes_before_all_that_were_stored_after_it() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    notice = bench.only(SendNotice)
    bench.worker(number=2, free=0, counted=(EPOCH, 1))
    bench.submit("b")
    bench.apply(answer(notice, point("a", attempt)))
    bench.worker(number=3, free=1, counted=(EPOCH, 1))
    assert redispatched(bench).request_id == "a"


def test_a_lost_attempt_is_stopped_on_its_worker_only_after_the_fence() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    assert bench.given(CancelOnWorker) == []
    bench.apply(answer(bench.only(SendNotice), point("a", attempt)))
    assert bench.only(CancelOnWorker).attempt == attempt


def test_a_loss_of_an_older_attempt_changes_nothing() -> None:
    bench, attempt = running()
    assert bench.apply(lost("w", point("a", attempt - 1))) == []
    assert bench.apply(lost("other", point("a", attempt))) == []
    assert bench.observer.counts["ignored: stale point"] == 2


def test_a_notice_is_repeated_until_the_gateway_answers() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    notice = bench.only(SendNotice)
    assert bench.apply(NoticeUnanswered(notice)) == []
    bench.after(1.1)
    assert bench.only(SendNotice) == notice


def test_a_lost_request_that_its_gateway_does_not_know_is_over() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    bench.apply(answer(bench.only(SendNotice), unknown=["a"]))
    assert bench.only(Acknowledge).request_id == "a"
    assert bench.observer.counts["abandoned: unknown to its gateway"] == 1


def test_a_lost_request_whose_client_has_everything_is_not_run_again() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1], finished=True)))
    assert bench.given(Dispatch) == []
    assert bench.settle("a") != []


def test_a_choice_that_is_finished_needs_no_slot_on_the_next_attempt() -> None:
    bench, attempt = running(n=2)
    bench.apply(lost("w", point("a", attempt)))
    notice = bench.only(SendNotice)
    bench.worker(number=2, free=1, counted=(EPOCH, 1))
    half = point("a", attempt, [1], [2, 3])
    half.progress[0].finish_reason = 1  # type: ignore[assignment]
    bench.apply(answer(notice, half))
    assert redispatched(bench).request_id == "a"


def test_a_parked_request_resumes_and_counts_no_failure() -> None:
    bench, attempt = running()
    bench.apply(parked("w", point("a", attempt, [1, 2, 3])))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1, 2])))
    record = redispatched(bench)
    assert list(record.progress[0].output_ids) == [1, 2], "the client has two of the three"
    assert record.failures == 0


def test_a_request_that_fails_too_often_ends_as_a_dead_letter() -> None:
    bench, attempt = running(SchedulerSettings(max_attempts=2))
    bench.apply(parked("w", point("a", attempt, error="no memory")))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt)))
    attempt = redispatched(bench).attempt
    bench.accept()
    bench.apply(parked("w", point("a", attempt, error="no memory again")))
    assert "no memory again" in bench.only(PublishDeadLetter).reason
    ((_, error),) = bench.only(SendNotice).ended
    assert isinstance(error, AttemptsExhausted)
    assert bench.given(Acknowledge) == [], "not before its gateway has settled it"
    bench.settle("a", code=13)
    assert bench.only(Acknowledge)


def test_a_worker_that_leaves_with_requests_counted_loses_them_without_a_failure() -> None:
    bench, attempt = running()
    bench.worker(number=2, leaving=True)
    bench.apply(answer(bench.only(SendNotice), point("a", attempt)))
    bench.worker("w2")
    assert redispatched(bench).failures == 0


def test_a_draining_worker_gets_nothing_new_and_keeps_what_it_runs() -> None:
    bench, attempt = running()
    bench.worker(number=2, draining=True, running={"a": attempt}, counted=(EPOCH, 1))
    assert bench.submit("b") == []
    found = bench.machine.find("a")
    assert found is not None
    assert found.is_running


def test_a_dropped_worker_that_returns_counts_from_its_report_on() -> None:
    bench, attempt = running(SchedulerSettings(gateway_silence_s=60.0))
    bench.after(3.1)
    running_again = {"a": attempt}
    bench.worker(number=2, free=1, total=2, running=running_again, counted=(EPOCH, 1))
    bench.submit("b")
    bench.accept()
    bench.submit("c")
    assert bench.given(Dispatch) == [], "b has the last slot, though dispatch 1 was counted"


def test_a_request_that_vanished_from_reports_is_fenced_if_it_is_not_settled() -> None:
    bench, attempt = running(SchedulerSettings(gateway_silence_s=60.0, worker_silence_s=60.0))
    bench.worker(number=2, counted=(EPOCH, 1))
    assert bench.after(4.9) == []
    bench.after(0.2)
    assert bench.only(SendNotice).fences == (("a", attempt),)


def test_a_request_that_is_not_yet_in_reports_has_not_vanished() -> None:
    bench, _ = running(SchedulerSettings(gateway_silence_s=60.0, worker_silence_s=60.0))
    bench.worker(number=2, counted=(EPOCH, 0))
    assert bench.after(20.0) == []


def test_an_attempt_that_is_over_is_stopped_where_it_still_runs() -> None:
    bench, attempt = running()
    bench.apply(lost("w", point("a", attempt)))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt)))
    bench.apply(
        reported("w", 2, received_s=100.0, free=0, running={"a": attempt}, counted=(EPOCH, 1))
    )
    assert bench.only(CancelOnWorker).attempt == attempt


def test_a_settled_request_that_still_runs_a_second_later_is_stopped() -> None:
    bench, attempt = running()
    bench.settle("a")
    seen = {"a": attempt}
    assert bench.worker(number=2, running=seen, counted=(EPOCH, 1)) == []
    bench.now_s += 1.1
    bench.worker(number=3, running=seen, counted=(EPOCH, 1))
    assert bench.only(CancelOnWorker).request_id == "a"


def test_requests_of_a_silent_gateway_are_stopped_and_removed() -> None:
    bench, _ = running(SchedulerSettings(worker_silence_s=60.0))
    bench.submit("b", n=4)
    bench.apply(gateway_reported(received_s=100.0))
    assert bench.after(5.0) == []
    bench.after(0.2)
    assert {c.request_id for c in bench.given(Acknowledge)} == {"a", "b"}
    assert bench.only(CancelOnWorker).request_id == "a"


def test_requests_of_a_gateway_that_leaves_are_removed_at_once() -> None:
    bench, _ = running()
    bench.apply(gateway_reported(received_s=100.0, leaving=True))
    assert bench.only(Acknowledge).request_id == "a"


def test_silence_does_not_count_while_the_bus_was_down() -> None:
    bench, _ = running()
    bench.now_s += 60.0
    assert bench.apply(BusDown()) == []
    assert bench.after(2.9) == []
    assert bench.after(0.3) != []
