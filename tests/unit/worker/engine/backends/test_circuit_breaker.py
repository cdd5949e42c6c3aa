"""When a failing server is sent no more requests."""

from __future__ import annotations

from headrace_worker.engine.backends.circuit_breaker import CircuitBreaker


def test_it_opens_at_the_last_of_so_many_failures_in_a_row_and_gives_the_reason() -> None:
    breaker = CircuitBreaker(failures=3)
    assert [breaker.record_failure(fact) for fact in ("no route", "no route", "timeout")] == [
        False,
        False,
        True,
    ]
    assert breaker.unavailable_reason == "3 failures in a row; the last: timeout"
    assert not breaker.record_failure("timeout"), "it was open"


def test_a_success_resets_the_count_and_closes_it() -> None:
    breaker = CircuitBreaker(failures=2)
    breaker.record_failure("timeout")
    breaker.record_success()
    assert not breaker.record_failure("timeout")
    assert breaker.unavailable_reason == ""
    assert breaker.record_failure("timeout")
    breaker.record_success()
    assert (breaker.is_open, breaker.unavailable_reason) == (False, "")
