"""When somebody who does not answer is left alone."""

from __future__ import annotations

from headrace_worker.engine.backends.circuit_breaker import Breaker


def test_it_opens_by_the_last_of_so_many_failures_in_a_row_and_says_why() -> None:
    breaker = Breaker(failures=3)
    assert [breaker.failed(fact) for fact in ("no route", "no route", "timeout")] == [
        False,
        False,
        True,
    ]
    assert breaker.refusing == "3 failures in a row; the last: timeout"
    assert not breaker.failed("timeout"), "it was open"


def test_a_success_begins_the_row_anew_and_closes_it() -> None:
    breaker = Breaker(failures=2)
    breaker.failed("timeout")
    breaker.succeeded()
    assert not breaker.failed("timeout")
    assert breaker.refusing == ""
    assert breaker.failed("timeout")
    breaker.succeeded()
    assert (breaker.is_open, breaker.refusing) == (False, "")
