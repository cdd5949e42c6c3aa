"""How many attempts may fail, and how they are counted."""

from __future__ import annotations

import pytest

from headrace.auth.check.failures import FailureLimiter, FailureLog


def test_twenty_attempts_a_minute_may_fail_and_then_one_every_three_seconds() -> None:
    limiter = FailureLimiter(20)
    assert [limiter.fail("192.0.2.1", 0.0) for _ in range(20)] == [None] * 20
    assert limiter.fail("192.0.2.1", 0.0) == pytest.approx(3.0)
    assert limiter.fail("192.0.2.1", 2.9) == pytest.approx(0.1)
    assert limiter.fail("192.0.2.1", 3.1) is None
    assert limiter.fail("192.0.2.1", 3.1) is not None
    assert [limiter.fail("192.0.2.1", 100.0) for _ in range(21)].count(None) == 20


def test_other_clients_have_their_own_limit_and_a_network_of_ipv6_has_one() -> None:
    limiter = FailureLimiter(per_minute=1)
    assert limiter.fail("192.0.2.1", 0.0) is None
    assert limiter.fail("192.0.2.2", 0.0) is None
    assert limiter.fail("2001:db8::1", 0.0) is None
    assert limiter.fail("2001:db8::2", 0.0) is not None


def test_the_memory_for_clients_is_bounded_and_those_that_fail_now_are_kept() -> None:
    limiter = FailureLimiter(per_minute=1, max_clients=100)
    assert limiter.fail("203.0.113.1", 0.0) is None
    for number in range(1000):
        limiter.fail(f"10.0.{number // 256}.{number % 256}", 0.0)
        assert limiter.fail("203.0.113.1", 0.0) is not None
    assert len(limiter) == 100


def test_a_clock_that_goes_backwards_gives_no_attempts() -> None:
    limiter = FailureLimiter(per_minute=1)
    assert limiter.fail("192.0.2.1", 1000.0) is None
    assert limiter.fail("192.0.2.1", 0.0) is not None


def test_attempts_are_counted_by_client_reason_and_key() -> None:
    log = FailureLog()
    for now_ms in (5, 6, 7):
        log.add("192.0.2.1", "unknown", "8dFanMt4iD4", now_ms)
    log.add("192.0.2.1", "malformed", "", 8)
    first, second = log.take()
    assert (first.count, first.first_ms, first.last_ms, first.key_id) == (3, 5, 7, "8dFanMt4iD4")
    assert (second.count, second.reason) == (1, "malformed")
    assert log.take() == []


def test_a_log_that_is_full_counts_by_reason_and_loses_no_attempt() -> None:
    log = FailureLog(max_entries=10)
    for number in range(1000):
        log.add(f"192.0.2.{number % 256}", "unknown", "", number)
    entries = log.take()
    assert len(entries) == 11
    assert sum(entry.count for entry in entries) == 1000
    assert entries[-1].client == ""
