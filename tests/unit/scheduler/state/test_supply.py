"""Waits after an idle time: requests that began together end together; probes are nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_scheduler.state.lengths import EndedChoice, Lengths, ObservedLength, Survival
from headrace_scheduler.state.supply import MAX_SAMPLED, RunningRequest, SlotSupply, sample_runs
from helpers.queue_simulation import Arrival, OfferedRequest, Simulation, median_error
from helpers.scheduler_events import Bench

SLOTS, TOKEN_S, FULL_S = 8, 0.05, 10.0
IDLE_S = 1000.0
ROUGHLY = 0.3

SEEN = st.lists(st.tuples(st.integers(1, 20).map(float), st.booleans()), max_size=12)


@given(SEEN, st.floats(0, 25))
def test_without_any_that_is_cut_off_the_share_beyond_is_what_was_counted(
    seen: list[tuple[float, bool]], tokens: float
) -> None:
    whole = [length for length, _ in seen] or [1.0]
    survival = Survival.of(ObservedLength(length, True) for length in whole)
    longer = sum(length > tokens for length in whole) / len(whole)
    assert survival.share_longer_than(tokens) == pytest.approx(longer)


@given(SEEN)
def test_what_is_cut_off_is_never_taken_to_be_shorter_than_it_was(
    seen: list[tuple[float, bool]],
) -> None:
    whole = Survival.of(ObservedLength(length, True) for length, _ in seen)
    cut = Survival.of(ObservedLength(length, ended) for length, ended in seen)
    assert all(cut.share_longer_than(t) >= whole.share_longer_than(t) - 1e-9 for t in range(20))
    assert cut.tail >= whole.tail or not any(ended for _, ended in seen)


def test_where_requests_began_at_all_times_slots_become_free_at_an_even_rate() -> None:
    runs = [RunningRequest(made, 100.0, 1) for made in range(0, 100, 5)]
    supply = SlotSupply(runs, Survival.of([]))
    assert supply.turn == pytest.approx(100.0)
    for slots in range(1, 60):
        assert supply.tokens_until_free(slots) == pytest.approx(slots * 100.0 / len(runs), abs=8.0)


def test_where_they_began_together_they_end_together_and_so_do_those_that_follow() -> None:
    supply = SlotSupply([RunningRequest(10.0, 100.0, 1)] * 8, Survival.of([]))
    assert [round(supply.tokens_until_free(n), -1) for n in (1, 8)] == [90.0, 90.0]
    assert supply.tokens_until_free(8.01) > 130.0


def test_the_worked_example_of_the_module_holds() -> None:
    lengths = Survival.of(ObservedLength(tokens, True) for tokens in (20.0, 20.0, 40.0, 40.0))
    supply = SlotSupply([RunningRequest(10.0, 100.0, 1)] * 4, lengths)
    free_at = [round(supply.tokens_until_free(n)) for n in (1, 2, 3, 4, 5)]
    assert (supply.turn, free_at) == (30.0, [11, 11, 30, 31, 32])


def test_a_few_stand_for_many() -> None:
    runs = [RunningRequest(float(i % 100), 100.0, 1 + i % 2) for i in range(1000)]
    few = sample_runs(runs)
    assert len(few) == MAX_SAMPLED
    assert sum(run.slots for run in few) == pytest.approx(1500)
    of_all, of_few = (SlotSupply(each, Survival.of([])) for each in (runs, few))
    assert of_few.tokens_until_free(300) == pytest.approx(of_all.tokens_until_free(300), rel=0.2)


def test_the_time_before_the_first_token_is_separated_from_the_tokens_own() -> None:
    lengths = Lengths()
    for tokens in (10, 30):
        lengths.add(
            EndedChoice(tokens, True, ran_s=2.0 + tokens * 0.1, ran_tokens=tokens, at_s=0.0)
        )
    assert lengths.token_times_s(0.1) == pytest.approx((0.1, 2.0))
    assert lengths.token_times_s(0.0) == pytest.approx((8.0 / 40, 0.0))


def burst(
    history: list[Arrival], runs_s: Callable[[], float], most_s: float, *, reports_tokens: bool
) -> list[OfferedRequest]:
    """All slots taken at once after an idle time; then more come. Returns these."""
    simulation = Simulation([SLOTS], token_s=TOKEN_S, reports_tokens=reports_tokens)
    simulation.offer(history)
    simulation.offer(
        Arrival(at_s, TOKEN_S, most_s=TOKEN_S, priority="interactive", probe=True)
        for at_s in range(1, int(IDLE_S), 5)
    )
    at_once = [Arrival(IDLE_S + 0.01 * i, runs_s(), most_s=most_s) for i in range(SLOTS)]
    later = [Arrival(IDLE_S + 0.4 + 0.7 * i, runs_s(), most_s=most_s) for i in range(14)]
    simulation.offer([*at_once, *later])
    simulation.run(IDLE_S + 100.0)
    return [a for a in simulation.offered.values() if a.arrival.at_s > IDLE_S + 0.3]


@pytest.mark.parametrize(
    ("history", "reports_tokens"),
    [(0, True), (20, True), (20, False)],
    ids=[
        "from nothing but probes",
        "after short ones",
        "after short ones, workers report no times",
    ],
)
def test_a_bound_that_all_come_to_is_what_is_waited_for(history: int, reports_tokens: bool) -> None:
    """The short ones were cut off by a bound of their own, and so are no evidence of these."""
    short = [Arrival(2.5 + 5.0 * i, TOKEN_S, most_s=TOKEN_S) for i in range(history)]
    offered = burst(short, lambda: FULL_S, FULL_S, reports_tokens=reports_tokens)
    assert offered[0].estimated_s == pytest.approx(FULL_S - 0.4, rel=0.1)
    assert all(a.estimated_s is not None for a in offered)
    assert median_error(offered, beyond_s=1.0) <= ROUGHLY


def test_answers_that_end_by_themselves_are_waited_for_as_long_as_they_were_lately() -> None:
    offered: list[OfferedRequest] = []
    for seed in range(4):
        rng = random.Random(seed)
        history = [Arrival(20.0 * i, rng.uniform(5.0, 11.0)) for i in range(20)]
        offered += burst(history, partial(rng.uniform, 5.0, 11.0), 0.0, reports_tokens=True)
    assert median_error(offered, beyond_s=1.0) <= ROUGHLY


def test_an_hour_of_probes_leaves_no_trace_in_figures_and_estimates() -> None:
    def after(probes: int) -> list[object]:
        bench = Bench()
        bench.worker(free=1, total=1)
        for i in range(probes):
            bench.submit(f"probe {i}", probe=True, priority="interactive", deadline_s=1e9)
            (figures, *_) = bench.machine.lanes(now_s=bench.now_s)
            assert (figures.waiting, figures.running, figures.oldest_wait_s) == (0, 0, 0.0)
            bench.accept()
            bench.now_s += 0.5
            bench.settle(f"probe {i}", output_tokens=1)
            bench.now_s += 0.1  # Until the report that shows the slot free again.
            bench.worker(number=2 + i, free=1, total=1, counted=(7, i + 1))
            bench.now_s += 5.0
        bench.worker(number=10_000, free=1, total=1, counted=(7, probes))
        for i in range(5):
            bench.submit(f"r{i}")
            bench.accept()
            bench.now_s += 1.0
            bench.settle(f"r{i}")
            bench.worker(number=10_001 + i, free=1, total=1, counted=(7, probes + 1 + i))
        bench.submit("runs", "waits")
        return [(f.priority, f.waiting, f.running, f.wait) for f in bench.machine.lanes(now_s=0.0)]

    assert after(720) == after(0)


def test_a_probe_goes_first_and_is_let_into_a_full_lane_and_nothing_is_parked_for_it() -> None:
    bench = Bench()
    bench.worker(free=1, total=1)
    bench.submit("bulk", priority="bulk")
    bench.accept()
    bench.worker(number=2, free=0, total=1, running={"bulk": (7 << 20) + 1}, counted=(7, 1))
    bench.submit(*(f"r{i}" for i in range(3)), priority="standard")
    commands = bench.submit("probe", probe=True, priority="interactive")
    assert commands == []
    bench.settle("bulk")
    bench.worker(number=3, free=1, total=1, counted=(7, 1))
    (dispatch,) = bench.commands
    assert [r.request_id for r in dispatch.message.requests] == ["probe"]  # type: ignore[union-attr]
