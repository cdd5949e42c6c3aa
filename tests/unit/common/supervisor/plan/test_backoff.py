"""How long a process that died stays down."""

from __future__ import annotations

from headrace.supervisor.plan.backoff import FIRST_S, LONGEST_S, STEADY_S, Backoff


def after(deaths: int) -> Backoff:
    backoff = Backoff()
    for _ in range(deaths):
        backoff = backoff.after_death(ran_s=0.1)
    return backoff


def test_the_first_start_does_not_wait() -> None:
    assert Backoff().wait_s == 0


def test_the_wait_doubles_with_each_death_in_a_row() -> None:
    assert [after(n).wait_s for n in (1, 2, 3)] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]


def test_the_wait_has_a_bound_however_many_deaths() -> None:
    assert after(10_000).wait_s == LONGEST_S


def test_a_long_run_resets_the_backoff() -> None:
    assert after(9).after_death(ran_s=STEADY_S).wait_s == FIRST_S
