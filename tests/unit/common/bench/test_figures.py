"""From outcomes to figures."""

from __future__ import annotations

import pytest

from headrace.bench.cpu import difference
from headrace.bench.figures import Figures, Outcome, Spread, figures, spread
from headrace.bench.load import Load


def of(*outcomes: Outcome, cpu_s: dict[str, float] | None = None) -> Figures:
    return figures(outcomes, concurrency=2, cpu_s=cpu_s or {}, client_cpu_s=0.5)


def test_rates_are_over_the_time_from_the_first_start_to_the_last_end() -> None:
    found = of(
        Outcome(10.0, 12.0, [11.0, 11.5], output_tokens=6),
        Outcome(11.0, 14.0, [11.5], output_tokens=2),
    )
    assert found.seconds == 4
    assert found.requests_per_s == 0.5
    assert found.output_tokens_per_s == 2
    assert found.ttft == Spread(500, 1000)
    assert found.inter_token == Spread(500, 500)


def test_a_failed_request_counts_as_an_error_and_in_nothing_else() -> None:
    found = of(
        Outcome(0.0, 1.0, [0.5], output_tokens=3),
        Outcome(0.0, 2.0, [0.1], output_tokens=9, error="429 full"),
    )
    assert (found.requests, found.errors, found.output_tokens) == (2, 1, 3)
    assert found.ttft == Spread(500, 500)
    assert found.error_examples == ["429 full"]


def test_tokens_are_set_against_the_cpu_time_of_the_whole_mesh() -> None:
    outcome = Outcome(0.0, 1.0, [0.5], output_tokens=30)
    assert of(outcome, cpu_s={"a": 0.5, "b": 1.0}).output_tokens_per_cpu_s == 20
    assert of(outcome).output_tokens_per_cpu_s is None


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert spread([]) == Spread(None, None)
    assert spread([i / 1000 for i in range(1, 101)]) == Spread(50, 99)
    assert spread([0.007]) == Spread(7, 7)


def test_a_process_that_was_started_again_counts_from_its_start() -> None:
    assert difference({"a": 5.0, "b": 9.0}, {"a": 7.0, "b": 1.0, "c": 2.0}) == {
        "a": 2.0,
        "b": 1.0,
        "c": 2.0,
    }


@pytest.mark.parametrize("chat", [True, False])
def test_the_requests_of_a_load_are_the_same_each_time_and_no_two_alike(chat: bool) -> None:
    load = Load("http://x", "m", chat=chat)
    assert load.body(1) == load.body(1)
    assert load.body(1) != load.body(2)
