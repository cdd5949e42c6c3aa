"""The waits that callers get as estimates, and what they turn out to be."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError, LaneFull, PatienceExhausted
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import LaneStatistics
from headrace_scheduler.state.events import Dispatch, SendNotice
from helpers.queue_simulation import (
    Arrival,
    OfferedRequest,
    Simulation,
    median_error,
    poisson,
    relative_errors,
)
from helpers.scheduler_events import EPOCH, Bench, gateway_reported

PATIENT = SchedulerSettings(gateway_silence_s=600.0, worker_silence_s=600.0)
TIGHT = PATIENT.model_copy(update={"max_waiting": 9})
ROUGHLY = 0.3
"""What the mesh promises of the median."""

LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "all alike": lambda _: 1.0,
    "short and long": lambda rng: rng.choice([0.4, 1.6]),
    "evenly spread": lambda rng: rng.uniform(0.2, 1.8),
    "memoryless": lambda rng: rng.expovariate(1.0),
    "a few very long": lambda rng: rng.paretovariate(2.2) * 0.545,
}
"""Of mean 1."""


def error_of(bench: Bench) -> HeadraceError:
    ((_, error),) = bench.only(SendNotice).ended
    return error


def figures(bench: Bench) -> dict[str, LaneStatistics]:
    return {f.priority: f for f in bench.machine.lanes(now_s=bench.now_s)}


def estimate(bench: Bench, priority: str = "standard") -> float | None:
    wait = figures(bench)[priority].wait
    return None if wait is None else wait.wait_s


def one_a_second(requests: int, *, ended: int, settings: SchedulerSettings = PATIENT) -> Bench:
    """One slot, which each request holds for a second; so many have ended."""
    bench = Bench(settings)
    bench.worker(free=1, total=1)
    bench.submit(*(f"r{i}" for i in range(requests)))
    bench.accept()
    for i in range(ended):
        bench.now_s += 1.0
        bench.apply(gateway_reported(received_s=bench.now_s))
        bench.worker(number=2 + i, free=1, total=1, counted=(EPOCH, i + 1))
        bench.accept()
    return bench


def assert_roughly_right(
    workers: list[int],
    lengths: str,
    mean_s: float,
    load: tuple[float, tuple[int, ...]],
    rng: random.Random,
    *,
    tokens: int = 0,
) -> None:
    """`load` is how much more is requested than the workers can do, and choices of a request."""
    overload, choices = load
    simulation = Simulation(workers, token_s=mean_s / tokens if tokens else 0.0)
    slots_asked = statistics.mean(choices)
    simulation.offer(
        poisson(
            rng,
            per_s=overload * sum(workers) / mean_s / slots_asked,
            for_s=8 * mean_s,
            runs_s=lambda: mean_s * LENGTHS[lengths](rng),
            n=lambda: rng.choice(choices),
        )
    )
    simulation.run()
    offered = simulation.offered.values()
    assert len(relative_errors(offered, beyond_s=mean_s)) > len(offered) / 3
    assert median_error(offered, beyond_s=mean_s) <= ROUGHLY


@settings(max_examples=15, derandomize=True, deadline=None)
@given(
    lengths=st.sampled_from(sorted(LENGTHS)),
    workers=st.lists(st.integers(8, 32), min_size=1, max_size=4),
    mean_s=st.floats(0.2, 4.0),
    overload=st.floats(1.5, 3.0),
    choices=st.sampled_from([(1,), (1, 1, 4)]),
    seed=st.integers(0, 1000),
)
def test_the_estimate_is_right_within_its_promise_for_half_of_the_callers(
    lengths: str,
    workers: list[int],
    mean_s: float,
    overload: float,
    choices: tuple[int, ...],
    seed: int,
) -> None:
    assert_roughly_right(workers, lengths, mean_s, (overload, choices), random.Random(seed))


@settings(max_examples=8, derandomize=True, deadline=None)
@given(
    lengths=st.sampled_from(sorted(LENGTHS)),
    workers=st.lists(st.integers(8, 32), min_size=1, max_size=4),
    mean_s=st.floats(0.2, 4.0),
    overload=st.floats(1.5, 3.0),
    choices=st.sampled_from([(1,), (1, 1, 4)]),
    seed=st.integers(0, 1000),
)
def test_the_estimate_is_as_good_where_tokens_are_counted(
    lengths: str,
    workers: list[int],
    mean_s: float,
    overload: float,
    choices: tuple[int, ...],
    seed: int,
) -> None:
    assert_roughly_right(
        workers, lengths, mean_s, (overload, choices), random.Random(seed), tokens=200
    )


def test_a_fleet_that_grows_is_at_once_believed_to_be_faster() -> None:
    rng = random.Random(1)
    simulation = Simulation([16])
    simulation.offer(poisson(rng, per_s=16.0, for_s=60.0, runs_s=lambda: rng.uniform(1.0, 3.0)))
    simulation.at(30.0, lambda: simulation.join("more", 16))
    simulation.run()
    later = [offered for offered in simulation.offered.values() if offered.arrival.at_s > 31.0]
    assert median_error(later, beyond_s=2.0) <= ROUGHLY


def test_a_fleet_that_shrinks_is_at_once_believed_to_be_slower() -> None:
    rng = random.Random(1)
    simulation = Simulation([16, 16])
    simulation.offer(poisson(rng, per_s=20.0, for_s=60.0, runs_s=lambda: rng.uniform(1.0, 3.0)))
    simulation.at(30.0, lambda: simulation.leave("w1"))
    simulation.run(300.0)
    later = [offered for offered in simulation.offered.values() if offered.arrival.at_s > 31.0]
    assert median_error(later, beyond_s=2.0) <= ROUGHLY


def test_estimates_of_lower_lanes_count_what_the_upper_ones_leave() -> None:
    """A fleet that interactive requests alone nearly fill: the others live on their floors."""
    rng = random.Random(1)
    simulation = Simulation([8, 8])
    capacity_per_s = 16 / 3
    for priority, part in (("interactive", 0.9), ("standard", 0.5), ("bulk", 0.6)):
        simulation.offer(
            poisson(
                rng,
                per_s=part * capacity_per_s,
                for_s=160.0,
                runs_s=lambda: rng.expovariate(1 / 3),
                priority=priority,
            )
        )
    simulation.run(160.0)
    for priority in ("standard", "bulk"):
        found = [a for a in simulation.offered.values() if a.arrival.priority == priority]
        assert median_error(found, beyond_s=3.0) <= ROUGHLY


def two_tenants(
    settings: SchedulerSettings, *, small_per_s: float, weights: Mapping[str, float] | None = None
) -> Simulation:
    """16 slots, of which one tenant requests ten times its share."""
    rng = random.Random(1)
    simulation = Simulation([8, 8], settings, weights=weights)
    for tenant, per_s in (("big", 40.0), ("small", small_per_s)):
        simulation.offer(
            poisson(
                rng,
                per_s=per_s,
                for_s=70.0,
                runs_s=lambda: rng.uniform(0.4, 1.6),
                tenant=tenant,
            )
        )
    simulation.run(70.0)
    return simulation


def of_tenant(simulation: Simulation, tenant: str) -> list[OfferedRequest]:
    offered = [a for a in simulation.offered.values() if a.arrival.tenant == tenant]
    return [a for a in offered if 5.0 < a.arrival.at_s < 20.0]


def test_a_tenant_with_few_requests_does_not_get_the_wait_of_anothers_backlog() -> None:
    simulation = two_tenants(SchedulerSettings(max_waiting=100_000), small_per_s=4.0)
    small = of_tenant(simulation, "small")
    assert len(small) > 30
    assert all(a.estimated_s is not None and a.estimated_s < 1.0 for a in small)
    assert all(a.waited_s is not None and a.waited_s < 1.0 for a in small)


@pytest.mark.parametrize("small_per_s", [4.0, 7.0, 20.0])
def test_a_backlogs_estimate_counts_the_requests_that_will_go_before_it(small_per_s: float) -> None:
    """Half of the service is the other tenant's, if it requests so much."""
    simulation = two_tenants(SchedulerSettings(max_waiting=100_000), small_per_s=small_per_s)
    assert median_error(of_tenant(simulation, "big"), beyond_s=2.0) <= ROUGHLY
    if small_per_s > 8.0:
        assert median_error(of_tenant(simulation, "small"), beyond_s=2.0) <= ROUGHLY


def test_weights_are_part_of_the_estimated_wait() -> None:
    settings = SchedulerSettings(max_waiting=100_000)
    simulation = two_tenants(settings, small_per_s=20.0, weights={"small": 4.0})
    for tenant in ("big", "small"):
        assert median_error(of_tenant(simulation, tenant), beyond_s=2.0) <= ROUGHLY


@pytest.mark.parametrize("priority", ["interactive", "standard"])
def test_an_urgent_estimate_counts_the_time_of_parking_bulk_requests(priority: str) -> None:
    rng = random.Random(1)
    simulation = Simulation([8], SchedulerSettings(max_waiting=100_000, max_preemptions=1000))
    simulation.offer(Arrival(0.0, 100.0, priority="bulk") for _ in range(20))
    simulation.offer(
        poisson(rng, per_s=2.0, for_s=60.0, from_s=1.0, runs_s=lambda: 1.0, priority=priority)
    )
    simulation.run(70.0)
    urgent = [a for a in simulation.offered.values() if a.arrival.priority == priority]
    assert urgent[0].estimated_s is None, "nothing was parked yet, so it is not known"
    estimated = [a.estimated_s for a in urgent if a.estimated_s is not None]
    assert len(estimated) > len(urgent) * 0.9
    assert max(estimated) < 0.2
    assert max(a.waited_s or 0.0 for a in urgent) < 0.2


def test_retry_after_of_a_full_lane_is_when_its_next_place_becomes_free() -> None:
    bench = one_a_second(10, ended=5, settings=TIGHT)
    bench.submit(*(f"later {i}" for i in range(5)))
    assert figures(bench)["standard"].waiting == 9
    bench.submit("one too many")
    error = error_of(bench)
    assert isinstance(error, LaneFull)
    assert error.retry_after_s == pytest.approx(1.0, rel=ROUGHLY)


def test_retry_after_of_patience_is_when_it_would_suffice() -> None:
    bench = one_a_second(15, ended=5)
    bench.submit("impatient", queue_deadline_s=bench.now_s + 0.5)
    bench.after(0.6)
    error = error_of(bench)
    assert isinstance(error, PatienceExhausted)
    assert error.retry_after_s == pytest.approx(9.5, rel=ROUGHLY)


def test_the_wait_is_unknown_until_something_was_measured() -> None:
    bench = Bench(PATIENT)
    bench.worker(free=0)
    bench.submit("a")
    assert estimate(bench) is None


def test_the_wait_is_unknown_without_a_worker() -> None:
    bench = one_a_second(15, ended=8)
    bench.worker(number=99, leaving=True)
    assert estimate(bench) is None


def test_where_there_is_room_no_request_waits() -> None:
    bench = Bench()
    bench.worker()
    assert [f.wait and f.wait.wait_s for f in figures(bench).values()] == [0.0, 0.0, 0.0]


def test_those_ahead_that_find_room_cost_no_wait() -> None:
    """In the instant between a pull and its dispatch, and while a worker answers."""
    bench = Bench(PATIENT)
    bench.worker(free=4, total=4)
    bench.submit("a")
    bench.submit("b", "c")  # wait until the dispatch of a is answered
    assert figures(bench)["standard"].waiting == 2
    assert estimate(bench) == 0.0
    bench.submit("d")
    assert estimate(bench) is None  # the fifth does not fit, and nothing has been measured


def test_room_that_waiting_requests_cannot_use_does_not_count() -> None:
    """Four choices side by side on one worker, of which each has two slots free."""
    bench = Bench(PATIENT)
    for worker_id in ("v", "w"):
        bench.worker(worker_id, free=2, total=4)
    bench.submit("wide", n=4)
    assert not bench.given(Dispatch)
    assert estimate(bench) is None


def test_the_estimate_is_the_wait_that_comes_true() -> None:
    bench = one_a_second(16, ended=5)
    assert figures(bench)["standard"].waiting == 10
    assert estimate(bench) == pytest.approx(11.0, rel=0.05)


def test_a_more_urgent_newcomer_does_not_wait_for_less_urgent_requests() -> None:
    bench = one_a_second(16, ended=5)
    assert estimate(bench, "interactive") == pytest.approx(1.1, rel=0.05)  # standard has its floor
    assert estimate(bench, "bulk") == pytest.approx(11.1, rel=0.1)


def test_every_move_between_states_is_counted() -> None:
    bench = Bench()
    bench.worker()
    bench.submit("a")
    bench.accept()
    bench.settle("a")
    moves = {name: n for name, n in bench.observer.counts.items() if " to " in name}
    assert moves == {
        "new to held": 1,
        "held to waiting": 1,
        "waiting to running": 1,
        "running to gone": 1,
    }
