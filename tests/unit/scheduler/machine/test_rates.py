"""How fast slots become free and requests come, and the wait that follows from these rates."""

from __future__ import annotations

import pytest

from headrace_scheduler.state.estimates import Arrivals, QueueAhead, ServiceRate, estimate_wait_s


def test_the_worked_example_of_the_module_holds() -> None:
    queue = QueueAhead(urgent=4.0, own=6.0, urgent_per_s=0.5, lanes_below=0)
    wait_s = estimate_wait_s(queue, slots_per_s=8 / 4, floor_share=0.1)
    assert wait_s == pytest.approx(7.33, abs=0.01)


def test_a_wait_that_may_be_endless_is_not_estimated() -> None:
    queue_ahead = QueueAhead(urgent=5.0, own=0.0, urgent_per_s=2.0, lanes_below=0)
    assert estimate_wait_s(queue_ahead, slots_per_s=1.0, floor_share=0.0) is None
    assert estimate_wait_s(queue_ahead, slots_per_s=1.0, floor_share=0.1) == pytest.approx(10.0)


def test_the_rate_does_not_sink_between_two_waves_of_ends() -> None:
    service_rate = ServiceRate(half_life_s=10.0, now_s=0.0)
    service_rate.advance(now_s=0.0, slots=8)
    service_rate.advance(now_s=4.0, slots=8)
    service_rate.add_ends(8)
    for now_s in (4.1, 6.0, 7.9):
        service_rate.advance(now_s=now_s, slots=8)
        assert service_rate.per_slot_s == pytest.approx(0.25)


def test_a_service_that_stalls_gets_a_lower_rate() -> None:
    service_rate = ServiceRate(half_life_s=10.0, now_s=0.0)
    service_rate.advance(now_s=0.0, slots=2)
    for now_s in range(1, 6):
        service_rate.advance(now_s=float(now_s), slots=2)
        service_rate.add_ends(2)
    assert service_rate.per_slot_s == pytest.approx(1.0)
    service_rate.advance(now_s=11.0, slots=2)
    assert service_rate.per_slot_s == pytest.approx(0.5)


def test_an_idle_fleet_measures_nothing() -> None:
    service_rate = ServiceRate(half_life_s=10.0, now_s=0.0)
    service_rate.advance(now_s=100.0, slots=0)
    assert service_rate.per_slot_s is None


def test_arrivals_are_counted_from_the_first_moment_on() -> None:
    arrivals = Arrivals(half_life_s=60.0, now_s=0.0)
    for now_s in range(1, 11):
        arrivals.add(2, now_s=float(now_s))
    assert arrivals.per_s(10.0) == pytest.approx(2.0, rel=0.1)
    assert arrivals.per_s(10_000.0) == pytest.approx(0.0, abs=1e-6)


def test_a_tenant_that_has_stopped_requesting_soon_counts_no_more() -> None:
    arrivals = Arrivals(half_life_s=60.0, now_s=0.0)
    for now_s in range(1, 101):
        arrivals.add(1, now_s=now_s / 10)
    assert arrivals.per_s(10.2) == pytest.approx(10.0, rel=0.1)
    assert arrivals.per_s(20.0) == pytest.approx(0.3, rel=0.1)
