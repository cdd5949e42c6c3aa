"""Refusals by the last report of a lane's leader and by what this gateway has published since."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import LaneFull, PatienceExhausted
from headrace.internal.v1.reports_pb2 import LaneReport, LaneState, TenantState
from headrace.v1 import common_pb2
from headrace_gateway.queue.lanes import LaneView, standing
from headrace_gateway.request.generation import Queued

STANDARD = common_pb2.PRIORITY_STANDARD
BULK = common_pb2.PRIORITY_BULK


def report(
    *,
    waiting: int,
    max_waiting: int = 4,
    epoch: int = 1,
    wait_s: int | None = None,
    place_s: int = 0,
    sequences: Sequence[int] = (),
    others: Sequence[TenantState] = (),
) -> LaneReport:
    """All that wait are of one tenant, "t", unless other tenants are given."""
    wait = None if wait_s is None else Duration(seconds=wait_s)
    place = None if wait_s is None else Duration(seconds=place_s)
    own = TenantState(
        tenant="t",
        waiting=waiting,
        estimated_wait=wait,
        place_interval=place,
        sequences=sequences,
        ahead=ranks(waiting, len(sequences)),
    )
    state = LaneState(
        priority=STANDARD,
        waiting=waiting,
        max_waiting=max_waiting,
        estimated_wait=wait,
        place_interval=place,
        tenants=[own, *others],
    )
    return LaneReport(scheduler_id="s1", model="toy", epoch=epoch, lanes=[state])


def ranks(waiting: int, marks: int) -> list[int]:
    """Of marks at even distances."""
    return [(waiting - 1) * i // max(1, marks - 1) for i in range(marks)]


def view(first: LaneReport) -> LaneView:
    lanes = LaneView(fresh_s=3.0)
    lanes.take(first, 0.0)
    return lanes


def publish(lanes: LaneView) -> None:
    with lanes.publishing("toy", STANDARD):
        pass


def refused(lanes: LaneView, *, now_s: float = 0.1, patience_s: float = 30.0) -> str | None:
    refusal = lanes.refusal("toy", STANDARD, tenant="t", patience_s=patience_s, now_s=now_s)
    return None if refusal is None else refusal.reason


def test_a_lane_with_room_takes_one_more() -> None:
    assert refused(view(report(waiting=3))) is None


def test_a_full_lane_refuses_with_a_time_to_retry_after() -> None:
    """When its next place becomes free; a second refused request gets the same time."""
    lanes = view(report(waiting=4, wait_s=7, place_s=2))
    for _ in range(2):
        refusal = lanes.refusal("toy", STANDARD, tenant="t", patience_s=30.0, now_s=0.1)
        assert isinstance(refusal, LaneFull)
        assert refusal.retry_after_s == 2.0


def test_a_lane_that_is_overfull_has_to_become_emptier_first() -> None:
    lanes = view(report(waiting=3, wait_s=7, place_s=2))
    for _ in range(3):
        publish(lanes)
    refusal = lanes.refusal("toy", STANDARD, tenant="t", patience_s=30.0, now_s=0.1)
    assert isinstance(refusal, LaneFull)
    assert refusal.retry_after_s == 6.0


def test_a_full_lane_whose_wait_is_unknown_can_be_retried_after_a_second() -> None:
    refusal = view(report(waiting=4)).refusal(
        "toy", STANDARD, tenant="t", patience_s=30.0, now_s=0.1
    )
    assert refusal is not None
    assert refusal.retry_after_s == 1.0


def test_a_wait_beyond_the_patience_is_refused_with_the_difference() -> None:
    lanes = view(report(waiting=1, wait_s=40))
    refusal = lanes.refusal("toy", STANDARD, tenant="t", patience_s=30.0, now_s=0.1)
    assert isinstance(refusal, PatienceExhausted)
    assert refusal.retry_after_s == 10.0


def test_an_unknown_wait_refuses_no_request() -> None:
    assert refused(view(report(waiting=1)), patience_s=0.0) is None


@pytest.mark.parametrize("room", [1, 2, 4])
def test_the_places_of_a_lane_are_taken_once_between_two_reports(room: int) -> None:
    lanes = view(report(waiting=4 - room))
    taken = 0
    while refused(lanes) is None:
        publish(lanes)
        taken += 1
    assert taken == room


def test_a_new_report_counts_what_was_published_before_it() -> None:
    lanes = view(report(waiting=3))
    publish(lanes)
    assert refused(lanes) == "LANE_FULL"
    lanes.take(report(waiting=1), 0.2)
    assert refused(lanes) is None


def test_what_is_still_being_published_is_in_no_report() -> None:
    lanes = view(report(waiting=3))
    with lanes.publishing("toy", STANDARD):
        lanes.take(report(waiting=3), 0.2)
        assert refused(lanes) == "LANE_FULL"


def test_what_was_withdrawn_takes_no_place() -> None:
    lanes = view(report(waiting=3))
    with suppress(TimeoutError), lanes.publishing("toy", STANDARD):
        raise TimeoutError
    assert refused(lanes) is None


def test_a_report_that_is_too_old_refuses_no_request() -> None:
    assert refused(view(report(waiting=4)), now_s=3.1) is None


def test_the_report_of_a_deposed_leader_is_ignored() -> None:
    lanes = view(report(waiting=4, epoch=2))
    lanes.take(report(waiting=0, epoch=1), 0.1)
    assert refused(lanes) == "LANE_FULL"


def test_a_lane_without_a_report_refuses_no_request() -> None:
    lanes = view(report(waiting=4))
    assert lanes.refusal("toy", BULK, tenant="t", patience_s=1.0, now_s=0.1) is None
    assert lanes.refusal("other", STANDARD, tenant="t", patience_s=1.0, now_s=0.1) is None


def test_lanes_are_listed_while_their_leader_reports() -> None:
    lanes = view(report(waiting=2, wait_s=5))
    (lane,) = lanes.lanes(1.0)
    assert (lane.model, lane.waiting, lane.max_waiting, lane.scheduler) == ("toy", 2, 4, "s1")
    assert lane.estimated_wait.seconds == 5
    assert not lane.HasField("oldest_wait")
    assert list(lanes.lanes(3.1)) == []


def test_a_place_in_a_short_lane_is_exact_and_its_wait_is_its_share() -> None:
    lanes = view(report(waiting=4, wait_s=12, place_s=2, sequences=[3, 7, 8, 20]))

    def place(sequence: int) -> Queued:
        return lanes.place("toy", STANDARD, tenant="t", sequence=sequence, now_s=0.1)

    assert place(3) == Queued(0, 4.0)
    assert place(20) == Queued(3, 10.0)
    assert place(21) == Queued(4, 12.0), "stored after the report"
    assert place(9) == Queued(), "it does not wait: it runs"


def test_a_place_has_no_wait_where_that_is_unknown() -> None:
    lanes = view(report(waiting=1, sequences=[3]))
    assert lanes.place("toy", STANDARD, tenant="t", sequence=3, now_s=0.1) == Queued(0)


def test_a_place_is_unknown_where_reports_are_old_or_missing() -> None:
    lanes = view(report(waiting=1, wait_s=1, sequences=[3]))
    assert lanes.place("toy", STANDARD, tenant="t", sequence=3, now_s=3.1) == Queued()
    assert lanes.place("toy", BULK, tenant="t", sequence=3, now_s=0.1) == Queued()
    assert lanes.place("other", STANDARD, tenant="t", sequence=3, now_s=0.1) == Queued()


@given(waiting=st.sets(st.integers(1, 10_000), min_size=65, max_size=500), data=st.data())
def test_a_place_in_a_long_lane_lies_between_the_outlined_ones(
    waiting: set[int], data: st.DataObject
) -> None:
    order = sorted(waiting)
    last = len(order) - 1
    outline = [order[last * i // 63] for i in range(64)]
    at = data.draw(st.integers(0, last))
    others = data.draw(st.integers(0, 3))
    """Of other tenants, before each of its own."""
    ahead = [(others + 1) * rank for rank in ranks(len(order), 64)]
    state = TenantState(tenant="t", waiting=len(order), sequences=outline, ahead=ahead)
    found = standing(state, order[at])
    assert found is not None
    assert abs(found[0] - at) <= len(order) / 63 + 1
    assert abs(found[1] - (others + 1) * at) <= (others + 1) * (len(order) / 63 + 1)


def test_each_tenant_has_the_wait_and_the_refusals_of_its_own_requests() -> None:
    small = TenantState(waiting=0, estimated_wait=Duration(seconds=1))
    lanes = view(report(waiting=2, wait_s=40, place_s=1, sequences=[3, 7], others=[small]))
    assert refused(lanes) == "PATIENCE_EXHAUSTED"
    assert lanes.refusal("toy", STANDARD, tenant="new", patience_s=30.0, now_s=0.1) is None


def test_tenants_that_a_report_leaves_out_have_an_unknown_wait() -> None:
    lanes = view(report(waiting=2, wait_s=40, sequences=[3, 7]))
    assert lanes.refusal("toy", STANDARD, tenant="new", patience_s=0.0, now_s=0.1) is None
    assert lanes.place("toy", STANDARD, tenant="new", sequence=8, now_s=0.1) == Queued()


def test_a_position_counts_requests_of_other_tenants_that_are_ahead() -> None:
    own = TenantState(
        tenant="b", waiting=2, sequences=[5, 9], ahead=[1, 3], estimated_wait=Duration(seconds=6)
    )
    own.place_interval.FromSeconds(2)
    lanes = view(report(waiting=2, wait_s=40, sequences=[3, 7], others=[own]))

    def place(sequence: int) -> Queued:
        return lanes.place("toy", STANDARD, tenant="b", sequence=sequence, now_s=0.1)

    assert place(5) == Queued(1, 2.0)
    assert place(9) == Queued(3, 4.0)
    assert place(10) == Queued(4, 6.0), "stored after the report"
