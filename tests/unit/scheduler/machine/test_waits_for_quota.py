"""Requests that their gateways hold back until the quota keeper grants more tokens."""

from __future__ import annotations

from headrace.errors import DeadlineExceeded
from headrace.internal.v1.operations_pb2 import ListLiveRequestsRequest
from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace_scheduler.machine.notices import QUOTA_NOTICE_S
from headrace_scheduler.request.live_list import page
from headrace_scheduler.state.events import CancelOnWorker, Dispatch, SendNotice
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    answer,
    gateway_reported,
    lost,
    point,
    reported,
    take_over_requested,
)

QUOTA, GRANTED = ParkCause.PARK_CAUSE_QUOTA, ParkCause.PARK_CAUSE_QUOTA_GRANTED


def short(attempt: int, *outputs: list[int]) -> ResumePoint:
    """The gateway has fenced `a`, and waits for quota."""
    return point("a", attempt, *outputs, cause=QUOTA)


def held_back(**fields: object) -> tuple[Bench, int]:
    """A bench on which request `a` has run with two tokens, and waits for quota."""
    bench = Bench()
    bench.worker()
    bench.submit("a", **fields)
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    bench.apply(lost("w", short(attempt, [1, 2])))
    bench.apply(answer(bench.only(SendNotice), short(attempt, [1, 2])))
    return bench, attempt


def keep_alive(bench: Bench, seconds: float) -> None:
    """Time passes, and everyone reports."""
    bench.now_s += seconds
    number = round(10 * bench.now_s)
    bench.apply(
        gateway_reported(received_s=bench.now_s),
        reported("w", number, received_s=bench.now_s, counted=(EPOCH, 1)),
    )


def test_it_runs_nowhere_until_its_gateway_answers_otherwise() -> None:
    bench, attempt = held_back()
    assert bench.given(Dispatch) == []
    assert bench.only(CancelOnWorker).attempt == attempt
    bench.worker(number=2, counted=(EPOCH, 1))
    assert bench.given(Dispatch) == [], "there is room on its worker"
    bench.apply(lost("", point("a", attempt, cause=GRANTED)))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1, 2])))
    (record,) = bench.only(Dispatch).message.requests
    assert record.attempt > attempt
    assert list(record.progress[0].output_ids) == [1, 2]
    assert record.failures == 0


def test_a_lost_report_of_the_grant_is_found_by_the_next_notice() -> None:
    bench, attempt = held_back()
    keep_alive(bench, QUOTA_NOTICE_S - 0.5)
    assert bench.given(SendNotice) == []
    keep_alive(bench, 1.0)
    assert bench.only(SendNotice).fences == (("a", attempt),)
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1, 2])))
    assert bench.only(Dispatch).message.requests[0].request_id == "a"


def test_its_worker_is_not_taken_for_full() -> None:
    bench, _ = held_back()
    bench.submit("b")
    assert bench.only(Dispatch).message.requests[0].request_id == "b"


def test_its_deadline_counts_and_its_patience_does_not() -> None:
    bench, attempt = held_back(deadline_s=110.0, queue_deadline_s=102.0)
    keep_alive(bench, 2.9)
    assert bench.given(SendNotice) == []
    keep_alive(bench, 2.5)
    bench.apply(answer(bench.only(SendNotice), short(attempt, [1, 2])))
    keep_alive(bench, 2.5)
    keep_alive(bench, 2.5)
    (ended,) = bench.only(SendNotice).ended
    assert isinstance(ended[1], DeadlineExceeded)


def test_lists_and_answers_show_it() -> None:
    bench, attempt = held_back()
    found = bench.machine.find("a")
    assert found is not None
    assert found.waits_for_quota
    (row,) = page([found], ListLiveRequestsRequest(), bench.machine.worker_name).rows
    assert row.waits_for_quota
    assert not row.running
    bench.apply(lost("", point("a", attempt, cause=GRANTED)))
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1, 2])))
    assert not found.waits_for_quota


def test_a_gateway_that_takes_it_over_waits_on() -> None:
    bench, _ = held_back(attachable=True)
    bench.apply(gateway_reported("h", received_s=bench.now_s))
    bench.apply(gateway_reported(received_s=bench.now_s, leaving=True))
    bench.apply(take_over_requested("a", "h"))
    found = bench.machine.find("a")
    assert found is not None
    attempt = found.record.attempt
    stands = short(attempt, [1, 2])
    bench.apply(take_over_requested("a", "h", stands=stands))
    assert bench.given(Dispatch) == []
    assert found.waits_for_quota
    bench.apply(lost("", point("a", attempt, cause=GRANTED)))
    assert bench.only(SendNotice).gateway_id == "h"
    bench.apply(answer(bench.only(SendNotice), point("a", attempt, [1, 2])))
    assert bench.only(Dispatch).message.requests[0].delivery_address == "at h"
