"""Who is refused, by what the leaders last said and by what we ourselves have added."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from headrace.errors import LaneFull, PatienceExhausted
from headrace.internal.v1.reports_pb2 import LaneReport, LaneState
from headrace.v1 import common_pb2
from headrace_gateway.lanes import LaneView

STANDARD = common_pb2.PRIORITY_STANDARD
BULK = common_pb2.PRIORITY_BULK


def report(
    *, waiting: int, max_waiting: int = 4, epoch: int = 1, wait_s: int | None = None
) -> LaneReport:
    state = LaneState(
        priority=STANDARD,
        waiting=waiting,
        max_waiting=max_waiting,
        estimated_wait=None if wait_s is None else Duration(seconds=wait_s),
    )
    return LaneReport(scheduler_id="s1", model="toy", epoch=epoch, lanes=[state])


def view(first: LaneReport) -> LaneView:
    lanes = LaneView(fresh_s=3.0)
    lanes.take(first, 0.0)
    return lanes


def refused(lanes: LaneView, *, now_s: float = 0.1, patience_s: float = 30.0) -> str | None:
    refusal = lanes.refusal("toy", STANDARD, patience_s=patience_s, now_s=now_s)
    return None if refusal is None else refusal.reason


def test_a_lane_with_room_takes_one_more() -> None:
    assert refused(view(report(waiting=3))) is None


def test_a_full_lane_refuses_and_says_when_to_come_back() -> None:
    lanes = view(report(waiting=4, wait_s=7))
    refusal = lanes.refusal("toy", STANDARD, patience_s=30.0, now_s=0.1)
    assert isinstance(refusal, LaneFull)
    assert refusal.retry_after_s == 7.0


def test_a_wait_beyond_the_patience_is_refused_with_the_difference() -> None:
    lanes = view(report(waiting=1, wait_s=40))
    refusal = lanes.refusal("toy", STANDARD, patience_s=30.0, now_s=0.1)
    assert isinstance(refusal, PatienceExhausted)
    assert refusal.retry_after_s == 10.0


def test_an_unknown_wait_refuses_nobody() -> None:
    assert refused(view(report(waiting=1)), patience_s=0.0) is None


@pytest.mark.parametrize("room", [1, 2, 4])
def test_the_places_of_a_lane_are_given_once_between_two_reports(room: int) -> None:
    lanes = view(report(waiting=4 - room))
    taken = 0
    while refused(lanes) is None:
        lanes.publishing("toy", STANDARD)
        lanes.published("toy", STANDARD)
        taken += 1
    assert taken == room


def test_a_new_report_counts_what_was_published_before_it() -> None:
    lanes = view(report(waiting=3))
    lanes.publishing("toy", STANDARD)
    lanes.published("toy", STANDARD)
    assert refused(lanes) == "LANE_FULL"
    lanes.take(report(waiting=1), 0.2)
    assert refused(lanes) is None


def test_what_is_still_being_published_is_in_no_report() -> None:
    lanes = view(report(waiting=3))
    lanes.publishing("toy", STANDARD)
    lanes.take(report(waiting=3), 0.2)
    assert refused(lanes) == "LANE_FULL"


def test_what_was_withdrawn_takes_no_place() -> None:
    lanes = view(report(waiting=3))
    lanes.publishing("toy", STANDARD)
    lanes.withdrawn("toy", STANDARD)
    assert refused(lanes) is None


def test_a_report_that_is_too_old_refuses_nobody() -> None:
    assert refused(view(report(waiting=4)), now_s=3.1) is None


def test_a_deposed_leader_is_not_believed() -> None:
    lanes = view(report(waiting=4, epoch=2))
    lanes.take(report(waiting=0, epoch=1), 0.1)
    assert refused(lanes) == "LANE_FULL"


def test_a_lane_that_no_report_names_refuses_nobody() -> None:
    lanes = view(report(waiting=4))
    assert lanes.refusal("toy", BULK, patience_s=1.0, now_s=0.1) is None
    assert lanes.refusal("other", STANDARD, patience_s=1.0, now_s=0.1) is None


def test_lanes_are_listed_while_their_leader_reports() -> None:
    lanes = view(report(waiting=2, wait_s=5))
    (lane,) = lanes.lanes(1.0)
    assert (lane.model, lane.waiting, lane.max_waiting, lane.scheduler) == ("toy", 2, 4, "s1")
    assert lane.estimated_wait.seconds == 5
    assert not lane.HasField("oldest_wait")
    assert list(lanes.lanes(3.1)) == []
