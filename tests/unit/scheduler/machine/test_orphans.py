"""A gateway dies: its streams wait for their readers elsewhere, bounded in time and number."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import LocateResponse
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.runtime.handlers import take_over_response
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelRequested,
    Dispatch,
    NoticeAnswered,
    NoticeUnanswered,
    ParkOnWorker,
    SendNotice,
    StoreResult,
)
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    caught_up,
    gateway_reported,
    parked,
    point,
    settled,
    submitted,
    take_over_requested,
)

SETTINGS = SchedulerSettings(gateway_silence_s=5.0, orphan_grace_s=30.0, notice_repeat_s=1.0)
NEW_ADDRESS = "at h"


def running(
    *, attachable: bool = True, settings: SchedulerSettings = SETTINGS
) -> tuple[Bench, int]:
    """A bench where r runs on w for gateway g; and its attempt."""
    bench = Bench(settings)
    bench.worker()
    bench.submit("r", attachable=attachable)
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    return bench, attempt


def take_over(bench: Bench, gateway_id: str = "h", *, unreachable: str = "") -> LocateResponse:
    """Return the answer to a gateway that requests r."""
    event = take_over_requested("r", gateway_id, unreachable=unreachable)
    bench.apply(event)
    found = bench.machine.find("r")
    return LocateResponse() if found is None else take_over_response(found, event.request)


def test_a_stream_of_a_silent_gateway_is_parked_and_kept() -> None:
    bench, attempt = running()
    bench.after(2.9)
    bench.worker(number=2, running={"r": attempt})
    bench.after(2.3)
    park = bench.only(ParkOnWorker)
    assert (park.worker_id, park.request_id, park.attempt, park.orphaned) == (
        "w",
        "r",
        attempt,
        True,
    )
    assert bench.machine.statistics()["orphaned"] == 1


def test_an_answer_in_one_piece_is_abandoned_with_its_gateway() -> None:
    bench, _ = running(attachable=False)
    bench.after(5.2)
    assert bench.only(Acknowledge).request_id == "r"
    assert bench.machine.find("r") is None


def test_a_gateway_gets_an_orphan_once_its_worker_has_parked_it() -> None:
    bench, attempt = running()
    bench.after(2.9)
    bench.worker(number=2, running={"r": attempt})
    bench.after(2.3)
    assert take_over(bench).pending
    bench.apply(parked("w", point("r", attempt, [7, 8])))
    given = take_over(bench)
    assert (given.record.gateway_id, list(given.record.progress[0].output_ids)) == ("h", [7, 8])
    assert given.record.attempt > attempt
    assert not given.record.prompt_ids


def test_it_resumes_at_its_new_gateways_point_and_its_old_place() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(parked("w", point("r", attempt, [7, 8])))
    given = take_over(bench)
    bench.worker(number=2, free=0, counted=(EPOCH, 1))
    bench.submit("later", gateway="h")
    bench.apply(take_over_requested("r", "h", stands=point("r", given.record.attempt, [7])))
    bench.worker(number=3, counted=(EPOCH, 1))
    first, second = bench.only(Dispatch).message.requests
    assert (first.request_id, second.request_id) == ("r", "later")
    assert list(first.progress[0].output_ids) == [7]
    assert (first.gateway_id, first.delivery_address) == ("h", NEW_ADDRESS)
    assert first.attempt > given.record.attempt > attempt


def test_a_silent_worker_is_not_awaited_for_long() -> None:
    bench, _ = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    assert take_over(bench).pending
    bench.after(1.1)
    assert take_over(bench).record.gateway_id == "h"


def test_an_orphan_that_no_gateway_takes_over_is_abandoned() -> None:
    bench, _ = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.after(29.0)
    assert bench.machine.find("r") is not None
    bench.after(1.1)
    assert bench.only(StoreResult).record.request_id == "r"
    assert bench.observer.counts["abandoned: no client came back"] == 1


def test_only_so_many_are_kept() -> None:
    bench = Bench(SchedulerSettings(max_orphans=2))
    bench.submit("a", "b", "c", attachable=True)
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    assert bench.machine.statistics()["orphaned"] == 2
    assert bench.observer.counts["abandoned: too many orphans"] == 1


def test_a_gateway_that_neither_another_nor_the_broker_reaches_is_gone_at_once() -> None:
    bench, _ = running()
    assert take_over(bench, unreachable="g").record.gateway_id == "g"
    probe = bench.only(SendNotice)
    bench.apply(NoticeUnanswered(probe, is_disconnected=True))
    assert bench.given(ParkOnWorker)
    assert bench.machine.statistics()["orphaned"] == 1


def test_a_gateway_that_one_of_both_reaches_keeps_its_requests() -> None:
    for answer in (
        lambda probe: NoticeAnswered(probe, (), ()),
        lambda probe: NoticeUnanswered(probe, is_disconnected=False),
    ):
        bench, _ = running()
        take_over(bench, unreachable="g")
        bench.apply(answer(bench.only(SendNotice)))
        assert bench.machine.statistics()["orphaned"] == 0
    bench, attempt = running()
    bench.apply(parked("w", point("r", attempt, [7])))
    bench.apply(NoticeUnanswered(bench.only(SendNotice), is_disconnected=True))
    assert bench.machine.statistics()["orphaned"] == 0, "the broker alone forgot it for a moment"


def test_the_settlement_of_a_former_gateway_is_ignored() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(parked("w", point("r", attempt, [7])))
    given = take_over(bench)
    bench.apply(settled("r", code=1))
    assert bench.machine.find("r") is not None
    bench.apply(settled("r", since=given.record.held_since_attempt))
    assert bench.machine.find("r") is None


def test_a_request_whose_new_client_left_before_it_resumed_is_left_to_the_next() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(parked("w", point("r", attempt, [7])))
    assert take_over(bench).record.gateway_id == "h"
    bench.after(1.1)
    bench.apply(NoticeAnswered(bench.only(SendNotice), (), ("r",)))
    assert bench.machine.statistics()["orphaned"] == 1
    assert take_over(bench, "i").record.gateway_id == "i"


def test_a_suspended_gateway_resumes_the_requests_that_no_other_took_over() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("h", received_s=bench.now_s))
    bench.after(2.9)
    bench.worker(number=2, running={"r": attempt})
    bench.after(2.3)
    bench.apply(parked("w", point("r", attempt, [7])))
    bench.apply(gateway_reported("h", received_s=bench.now_s))
    assert bench.machine.statistics()["orphaned"] == 1
    bench.apply(gateway_reported("g", received_s=bench.now_s))
    fence = bench.only(SendNotice)
    assert (fence.gateway_id, fence.fences) == ("g", (("r", attempt),))
    bench.worker(number=3, counted=(EPOCH, 1))
    bench.apply(NoticeAnswered(fence, (point("r", attempt, [7, 8]),), ()))
    (record,) = bench.only(Dispatch).message.requests
    assert list(record.progress[0].output_ids) == [7, 8]


def test_a_suspended_gateway_gets_notice_of_the_requests_that_moved() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(parked("w", point("r", attempt, [7])))
    take_over(bench)
    (to_former,) = [notice for notice in bench.given(SendNotice) if notice.gateway_id == "g"]
    assert [request_id for request_id, _ in to_former.ended] == ["r"]


def test_a_later_leader_learns_of_a_take_over_before_or_after_the_record() -> None:
    since = (EPOCH - 1) << 20 | 5
    taken_over = gateway_reported("h", received_s=100.0, taken_over={"r": since})
    for before in (True, False):
        bench = Bench(SETTINGS, holding=True)
        record = submitted("r", attachable=True)
        bench.apply(*((taken_over, record) if before else (record, taken_over)))
        bench.apply(*caught_up())
        found = bench.machine.find("r")
        assert found is not None
        assert (found.gateway_id, found.record.delivery_address) == ("h", "at h")
        assert bench.only(SendNotice).gateway_id == "h"
        bench.apply(settled("r"))
        assert bench.machine.find("r") is not None, "its first gateway's settlement"


def test_a_gateway_gets_no_notice_of_a_request_that_returns_to_it() -> None:
    bench, attempt = running()
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.apply(parked("w", point("r", attempt, [7])))
    assert take_over(bench).record.gateway_id == "h"
    bench.after(1.1)
    bench.apply(NoticeAnswered(bench.only(SendNotice), (), ("r",)))
    assert take_over(bench).record.gateway_id == "h"
    assert not [notice for notice in bench.given(SendNotice) if notice.ended]


def test_clients_of_a_suspended_gateway_get_the_ends_of_abandoned_requests() -> None:
    for attachable, seconds in ((False, 5.2), (True, 40.0)):
        bench = Bench(SETTINGS)
        bench.submit("r", attachable=attachable)
        bench.after(seconds / 2)
        bench.after(seconds / 2)
        if attachable:
            bench.after(31.0)
        assert bench.machine.find("r") is None
        notice = bench.only(SendNotice)
        assert (notice.gateway_id, [request_id for request_id, _ in notice.ended]) == ("g", ["r"])


def test_an_end_that_a_former_gateway_does_not_know_is_not_the_end() -> None:
    bench = Bench(SETTINGS, holding=True)
    bench.apply(submitted("r", attachable=True), *caught_up(), CancelRequested("r"))
    notice = bench.only(SendNotice)
    since = (EPOCH - 1) << 20 | 5
    bench.apply(gateway_reported("h", received_s=bench.now_s, taken_over={"r": since}))
    assert bench.only(SendNotice).gateway_id == "h"
    bench.apply(NoticeAnswered(notice, (), ("r",)))
    assert bench.machine.find("r") is not None


def test_orphans_are_not_kept_longer_because_their_gateway_is_gone_once_more() -> None:
    bench = Bench(SchedulerSettings(max_orphans=1))
    bench.submit("r", attachable=True)
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    bench.after(20.0)
    bench.apply(gateway_reported("g", received_s=bench.now_s, leaving=True))
    assert bench.machine.statistics()["orphaned"] == 1
    bench.after(10.1)
    assert bench.machine.find("r") is None


def test_what_was_taken_over_of_another_model_means_nothing_here() -> None:
    bench = Bench(SETTINGS)
    bench.apply(gateway_reported("h", received_s=bench.now_s, taken_over={"r": 5}))
    bench.submit("r", gateway="g")
    found = bench.machine.find("r")
    assert found is not None
    assert found.gateway_id == "g"


def test_a_request_left_before_it_resumed_under_an_earlier_leader_is_left_to_the_next_too() -> None:
    bench = Bench(SETTINGS, holding=True)
    since = (EPOCH - 1) << 20 | 5
    bench.apply(
        submitted("r", attachable=True),
        gateway_reported("h", received_s=bench.now_s, taken_over={"r": since}),
        *caught_up(),
    )
    bench.apply(NoticeAnswered(bench.only(SendNotice), (), ("r",)))
    assert bench.machine.statistics()["orphaned"] == 1
    assert take_over(bench, "i").record.gateway_id == "i"
