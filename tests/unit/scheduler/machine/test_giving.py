"""Detached requests whose gateway is gone: another goes on with them, or their end is kept."""

from __future__ import annotations

from headrace.bus.subjects import ANY_GATEWAY
from headrace.errors import Code, NoWorker
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelRequested,
    Dispatch,
    NoticeAnswered,
    ParkOnWorker,
    SendNotice,
    StoreResult,
)
from helpers.scheduler_events import (
    EPOCH,
    Bench,
    gateway_reported,
    parked,
    point,
    settled,
    take_over_requested,
)

SETTINGS = SchedulerSettings(gateway_silence_s=5.0, orphan_grace_s=30.0, notice_repeat_s=1.0)
NEVER = float("inf")


def running(
    settings: SchedulerSettings = SETTINGS, *, deadline_s: float = NEVER
) -> tuple[Bench, int]:
    """A bench where r runs detached on w for gateway g; and its attempt."""
    bench = Bench(settings)
    bench.worker()
    bench.submit("r", detached=True, deadline_s=deadline_s)
    attempt = bench.only(Dispatch).message.requests[0].attempt
    bench.accept()
    return bench, attempt


def lives(bench: Bench, *gateway_ids: str, draining: bool = False) -> None:
    """These report that they live, and where."""
    for gateway_id in gateway_ids:
        address = f"at {gateway_id}"
        report = gateway_reported(
            gateway_id, received_s=bench.now_s, address=address, draining=draining
        )
        bench.apply(report)


def leaves(bench: Bench, gateway_id: str = "g") -> None:
    bench.apply(gateway_reported(gateway_id, received_s=bench.now_s, leaving=True))


def fence(bench: Bench) -> SendNotice:
    """Return the notice that assigns r to a gateway."""
    (found,) = [notice for notice in bench.given(SendNotice) if notice.fences]
    return found


def test_another_gateway_gets_it_with_the_output_of_its_worker() -> None:
    bench, attempt = running()
    lives(bench, "h")
    leaves(bench)
    assert bench.only(ParkOnWorker).orphaned
    bench.apply(parked("w", point("r", attempt, [7, 8])))
    bench.after(0.2)
    given = fence(bench)
    (record,) = given.records
    assert (given.gateway_id, record.gateway_id, record.delivery_address) == ("h", "h", "at h")
    assert list(record.progress[0].output_ids) == [7, 8]
    assert record.held_since_attempt == record.attempt > attempt
    assert not record.prompt_ids
    bench.worker(number=2, counted=(EPOCH, 1))
    bench.apply(NoticeAnswered(given, (point("r", record.attempt, [7, 8]),), ()))
    (again,) = bench.only(Dispatch).message.requests
    assert (again.gateway_id, list(again.progress[0].output_ids)) == ("h", [7, 8])
    assert list(again.prompt_ids), "workers need it"


def test_what_ran_is_not_reassigned_before_its_worker_has_parked_it_or_that_time_is_over() -> None:
    bench, _ = running()
    lives(bench, "h")
    leaves(bench)
    bench.after(0.5)
    assert not bench.given(SendNotice)
    bench.after(0.6)
    assert fence(bench).gateway_id == "h"


def test_a_gateway_that_does_not_take_it_is_not_the_only_one() -> None:
    bench = Bench(SETTINGS)
    bench.submit("r", detached=True)
    lives(bench, "h", "i")
    leaves(bench)
    bench.after(0.2)
    asked_of = []
    for _ in range(4):
        given = fence(bench)
        asked_of.append(given.gateway_id)
        bench.apply(NoticeAnswered(given, (), ("r",)))
        lives(bench, "h", "i")
        bench.after(0.2)
        assert not [n for n in bench.given(SendNotice) if n.fences], "not at once again"
        bench.after(0.9)
    assert set(asked_of) == {"h", "i"}
    assert bench.machine.statistics()["orphaned"] + bench.machine.statistics()["lost"] == 1


def test_the_only_gateway_may_be_assigned_what_it_has_released() -> None:
    bench, attempt = running()
    lives(bench, "g")
    bench.worker(number=2, leaving=True)
    fenced = fence(bench)
    assert (fenced.gateway_id, fenced.records) == ("g", ())
    bench.apply(NoticeAnswered(fenced, (), ("r",)))
    assert bench.machine.statistics()["orphaned"] == 1
    lives(bench, "g")
    bench.after(1.1)
    given = fence(bench)
    assert (given.gateway_id, [r.request_id for r in given.records]) == ("g", ["r"])
    assert not [n for n in bench.given(SendNotice) if n.ended], (
        "its own gateway gets no notice of the move"
    )
    assert given.records[0].attempt > attempt


def test_without_a_gateway_it_waits_until_its_deadline_and_its_end_is_kept() -> None:
    bench, _ = running(deadline_s=400.0)
    leaves(bench)
    bench.after(200.0)
    assert bench.machine.statistics()["orphaned"] == 1
    bench.after(100.1)
    kept = bench.only(StoreResult)
    assert (kept.record.request_id, kept.error.code) == ("r", Code.DEADLINE_EXCEEDED)
    assert not bench.given(Acknowledge), "not before it is kept"
    assert bench.machine.find("r") is None


def test_what_is_too_much_to_keep_ends_with_an_error_that_is_kept() -> None:
    bench = Bench(SchedulerSettings(max_orphans=2))
    bench.submit("a", "b", "c", detached=True)
    leaves(bench)
    assert bench.machine.statistics()["orphaned"] == 2
    assert "too many orphans" in bench.only(StoreResult).error.message


def test_a_request_cancelled_while_no_gateway_holds_it_is_stored_as_cancelled() -> None:
    bench, _ = running()
    leaves(bench)
    bench.apply(CancelRequested("r"))
    assert bench.only(StoreResult).error.code is Code.CANCELLED


def test_an_end_whose_gateway_died_before_its_notice_is_stored() -> None:
    bench = Bench(SETTINGS)
    bench.submit("r", detached=True, queue_deadline_s=101.0)
    bench.after(1.1)
    assert isinstance(bench.only(SendNotice).ended[0][1], NoWorker)
    leaves(bench)
    assert isinstance(bench.only(StoreResult).error, NoWorker)


def test_an_end_that_its_gateway_does_not_know_of_is_kept() -> None:
    bench = Bench(SETTINGS)
    bench.submit("r", detached=True, queue_deadline_s=101.0)
    bench.after(1.1)
    bench.apply(NoticeAnswered(bench.only(SendNotice), (), ("r",)))
    assert isinstance(bench.only(StoreResult).error, NoWorker)


def test_a_gateway_that_drains_hands_over_at_once_and_gets_nothing() -> None:
    bench, attempt = running()
    bench.submit("stream", attachable=True)
    lives(bench, "h")
    lives(bench, "g", draining=True)
    park = bench.only(ParkOnWorker)
    assert (park.request_id, park.orphaned) == ("r", True)
    bench.apply(parked("w", point("r", attempt, [7])))
    lives(bench, "g", draining=True)
    bench.after(0.2)
    moved, given = bench.given(SendNotice)
    assert (moved.gateway_id, [i for i, _ in moved.ended]) == ("g", ["r"])
    assert (given.gateway_id, given.records[0].request_id) == ("h", "r")
    assert bench.machine.statistics()["orphaned"] == 0, "the stream stays with its reader"


def test_a_gateway_that_drains_keeps_what_no_other_can_take() -> None:
    bench, _ = running()
    lives(bench, "g", draining=True)
    assert not bench.given(ParkOnWorker)
    assert bench.machine.statistics()["orphaned"] == 0
    leaves(bench)
    assert bench.machine.statistics()["orphaned"] == 1


def test_the_first_gateway_that_requests_it_gets_it_and_no_other_does() -> None:
    bench = Bench(SETTINGS)
    bench.submit("r", detached=True)
    leaves(bench)
    bench.apply(take_over_requested("r", "i"))
    lives(bench, "h")
    bench.after(0.2)
    assert bench.machine.find("r") is not None
    assert not [n for n in bench.given(SendNotice) if n.gateway_id == "h"]


def test_the_settlement_of_the_gateway_that_took_it_over_ends_it() -> None:
    bench = Bench(SETTINGS)
    bench.submit("r", detached=True)
    lives(bench, "h")
    leaves(bench)
    bench.after(0.2)
    since = fence(bench).records[0].held_since_attempt
    bench.apply(settled("r"))
    assert bench.machine.find("r") is not None, "its former gateway's settlement"
    bench.apply(settled("r", since=since))
    assert bench.only(Acknowledge).request_id == "r"


def test_records_that_do_not_fit_one_message_go_with_the_next() -> None:
    bench = Bench(SETTINGS)
    lives(bench, "h")
    ids = [f"r{number}" for number in range(3)]
    bench.submit(*ids, detached=True, adapter="a" * 200_000)
    leaves(bench)
    bench.after(0.2)
    assigned = []
    for _ in range(3):
        given = fence(bench)
        assert len(given.records) == len(given.fences) == 1
        assigned.append(given.records[0].request_id)
        stands = ResumePoint(request_id=assigned[-1], attempt=given.fences[0][1])
        bench.apply(NoticeAnswered(given, (stands,), ()))
    assert assigned == ids


def test_one_that_no_gateway_has_published_is_assigned_to_one_at_once() -> None:
    bench = Bench(SETTINGS)
    bench.worker()
    lives(bench, "h")
    bench.submit("r", detached=True, gateway=ANY_GATEWAY)
    assert not bench.given(Dispatch), "no gateway would receive its output"
    bench.after(0.2)
    given = fence(bench)
    (record,) = given.records
    assert (given.gateway_id, record.gateway_id, record.delivery_address) == ("h", "h", "at h")
    bench.apply(NoticeAnswered(given, (point("r", record.attempt, []),), ()))
    assert bench.only(Dispatch).message.requests[0].gateway_id == "h"


def test_one_that_no_gateway_has_published_waits_for_one() -> None:
    bench = Bench(SETTINGS)
    bench.worker()
    bench.submit("r", detached=True, gateway=ANY_GATEWAY)
    bench.after(60.0)
    assert bench.machine.statistics()["orphaned"] == 1
    lives(bench, "h")
    bench.after(0.2)
    assert fence(bench).gateway_id == "h"


def test_one_that_another_gateway_has_taken_over_stays_there_under_a_new_leader() -> None:
    bench = Bench(SETTINGS, holding=True)
    bench.submit("r", detached=True, gateway=ANY_GATEWAY)
    report = gateway_reported("h", received_s=bench.now_s, address="at h", taken_over={"r": 5})
    bench.apply(report)
    (found,) = bench.machine.requests()
    assert (found.gateway_id, found.record.held_since_attempt) == ("h", 5)
