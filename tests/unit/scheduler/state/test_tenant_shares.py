"""Which requests go before another, where tenants take turns; and how long it waits for them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.state.estimates import CompetingTenant, QueueAhead, estimate_wait_s
from headrace_scheduler.state.lanes import Lane
from headrace_scheduler.state.tenant_shares import TenantShare, ahead, sample_ranks
from helpers.scheduler_events import submitted

TENANTS = "abc"
RIVALS = st.lists(
    st.builds(CompetingTenant, st.floats(0, 50), st.floats(0, 50), st.floats(0, 2)), max_size=4
).map(tuple)
CROWDS = st.builds(
    QueueAhead,
    urgent=st.floats(0, 5),
    own=st.floats(0, 20),
    urgent_per_s=st.floats(0, 0.5),
    lanes_below=st.integers(0, 2),
    competitors=RIVALS,
    free=st.integers(0, 5),
)


def waiting(sequence: int, tenant: str) -> Request:
    return submitted(f"r{sequence}", sequence, tenant=tenant).request


def estimated_s(queue_ahead: QueueAhead) -> float:
    wait = estimate_wait_s(queue_ahead, slots_per_s=1.0, floor_share=0.1)
    assert wait is not None
    return wait


@given(
    arrivals=st.lists(st.sampled_from(TENANTS), min_size=1, max_size=40),
    started=st.integers(0, 10),
    weight=st.sampled_from([1.0, 3.0]),
)
def test_as_many_requests_go_before_each_as_estimated(
    arrivals: list[str], started: int, weight: float
) -> None:
    """Of equals it is not known which is first, so one of each other tenant more or less."""
    lane = Lane(SchedulerSettings())
    lane.set_weights({"a": weight})
    for sequence, tenant in enumerate(arrivals):
        lane.put(waiting(sequence, tenant))
    for _ in range(min(started, len(arrivals) - 1)):
        first = next(lane.in_order(lambda _: True))
        lane.remove(first)
        lane.start(first)
    order = [request.sequence for request in lane.in_order(lambda _: True)]
    known = lane.tenant_shares()
    marks = [mark for own in known for mark in lane.marks(known, own, size=64)]
    assert sorted(mark.sequence for mark in marks) == sorted(order)
    for mark in marks:
        assert abs(mark.ahead - order.index(mark.sequence)) <= 2 * len(TENANTS)


def test_one_that_has_had_more_lets_the_others_catch_up() -> None:
    ahead_of = TenantShare("a", counter=30.0, request_cost=10.0, waiting=2, slots=2)
    behind = TenantShare("b", counter=0.0, request_cost=10.0, waiting=9, slots=9)
    assert ahead(ahead_of, [behind], 0) == 4
    assert ahead(ahead_of, [behind], 1) == 6
    assert ahead(behind, [ahead_of], 2) == 2


def test_one_that_is_free_of_charge_goes_before_all() -> None:
    free = TenantShare("a", counter=0.0, request_cost=0.0, waiting=5, slots=5)
    assert free.requests_up_to(0.0) == math.inf
    assert ahead(TenantShare("b", counter=0.0, request_cost=1.0), [free], 0) == 5


@given(waiting=st.integers(1, 500), size=st.integers(2, 64))
def test_marked_places_are_the_first_the_last_and_some_between(waiting: int, size: int) -> None:
    places = sample_ranks(waiting, size)
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, waiting - 1)
    assert len(places) == min(waiting, size)


def test_a_competing_tenant_slower_than_its_turn_takes_part_of_the_service() -> None:
    """Ten of its own; of each second, a quarter goes to another tenant where it requests some."""
    queue_ahead = QueueAhead(
        0.0, 9.0, 0.0, 0, competitors=(CompetingTenant(due=100.0, waiting=0.0, per_s=0.25),)
    )
    assert estimated_s(queue_ahead) == pytest.approx(10.0 / 0.75, rel=0.01)


def test_a_competing_tenant_takes_no_more_than_its_turns() -> None:
    queue_ahead = QueueAhead(
        0.0, 9.0, 0.0, 0, competitors=(CompetingTenant(due=10.0, waiting=50.0, per_s=9.0),)
    )
    assert estimated_s(queue_ahead) == pytest.approx(20.0)


@given(queue_ahead=CROWDS)
def test_the_wait_is_one_at_which_it_comes_out_even(queue_ahead: QueueAhead) -> None:
    wait = estimated_s(queue_ahead)

    def after(wait_s: float) -> float:
        return estimated_s(queue_ahead.at_wait(wait_s))

    assert after(0.0) <= wait * 1.001
    assert after(wait * 1.001) <= wait * 1.01 + 0.01 * after(math.inf)


@given(
    queue_ahead=CROWDS,
    competitor=st.builds(CompetingTenant, st.floats(0, 9), st.floats(0, 9), st.floats(0, 2)),
)
def test_another_competing_tenant_never_shortens_the_wait(
    queue_ahead: QueueAhead, competitor: CompetingTenant
) -> None:
    more = replace(queue_ahead, competitors=(*queue_ahead.competitors, competitor))
    assert estimated_s(more) >= estimated_s(queue_ahead) * 0.99 - 0.01
