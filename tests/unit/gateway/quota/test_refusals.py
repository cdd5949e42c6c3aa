"""Refusals of the quota keeper as callers read them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InsufficientQuota, RateLimitExceeded
from headrace.internal.v1.quota_pb2 import (
    LimitKind,
    LimitScope,
    LimitState,
    QuotaRefusal,
    QuotaReply,
)
from headrace_gateway.quota.refusals import refusal_error, until_all_fit
from headrace_gateway.request.payer import Payer

# 2027-01-15T08:00:00Z
NOW_MS = 1_800_000_000_000
PAYER = Payer("acme", "k1", "valley")


def refusal(kind: str, *, wait_s: float = 12.2, **fields: Any) -> QuotaRefusal:
    known = {
        "scope": LimitScope.LIMIT_SCOPE_TENANT,
        "limit": 1000,
        "used": 900,
        "requested": 200,
        "retry_after_ms": NOW_MS + int(wait_s * 1000),
    }
    return QuotaRefusal(kind=LimitKind.Value(f"LIMIT_KIND_{kind}"), **(known | fields))


def test_a_limit_of_a_minute_says_how_long_and_what_to_do() -> None:
    error = refusal_error(refusal("TOKENS_PER_MINUTE"), PAYER, NOW_MS)
    assert isinstance(error, RateLimitExceeded)
    assert error.retry_after_s == pytest.approx(12.2)
    assert error.message == (
        "Rate limit reached, tokens_per_minute of tenant acme: limit 1000, used 900, requested 200."
        " Retry in 13 s or request fewer with max_tokens."
    )


def test_a_limit_of_requests_under_way_says_that_the_time_is_an_estimate() -> None:
    error = refusal_error(refusal("CONCURRENT_REQUESTS", wait_s=1), PAYER, NOW_MS)
    assert isinstance(error, RateLimitExceeded)
    assert error.message.endswith(
        "Retry when one of the requests under way has ended, in about 1 s."
    )


def test_a_limit_of_a_day_says_when_it_resets() -> None:
    error = refusal_error(refusal("REQUESTS_PER_DAY", wait_s=57_600), PAYER, NOW_MS)
    assert isinstance(error, InsufficientQuota)
    assert error.retry_after_s == 57_600
    assert "It resets at 2027-01-16T00:00:00Z, in 16h0m0s." in error.message


def test_a_budget_is_named_in_the_tenants_currency() -> None:
    spent = refusal(
        "BUDGET_PER_MONTH", limit=25_000_000_000, used=24_999_500_000, requested=1_000_000
    )
    error = refusal_error(spent, PAYER, NOW_MS, currency="EUR")
    assert "limit 25.00 EUR, used 24.9995 EUR, requested 0.001 EUR" in error.message


def test_a_request_that_alone_exceeds_a_limit_has_no_time_to_wait_for() -> None:
    error = refusal_error(refusal("TOKENS_PER_MINUTE", requested=2000, never=True), PAYER, NOW_MS)
    assert isinstance(error, InsufficientQuota)
    assert error.retry_after_s is None
    assert error.message.startswith("The request alone exceeds tokens_per_minute of tenant acme")


@pytest.mark.parametrize(
    ("scope", "model", "whose", "subject"),
    [
        ("TENANT", "", "tenant acme", "tenants/acme"),
        ("KEY", "", "key k1", "tenants/acme/keys/k1"),
        ("MODEL", "valley", "tenant acme for model valley", "tenants/acme"),
        ("KEY_MODEL", "valley", "key k1 for model valley", "tenants/acme/keys/k1"),
    ],
)
def test_it_names_whose_limit_it_is(scope: str, model: str, whose: str, subject: str) -> None:
    found = refusal(
        "REQUESTS_PER_MINUTE", scope=LimitScope.Value(f"LIMIT_SCOPE_{scope}"), model=model
    )
    error = refusal_error(found, PAYER, NOW_MS)
    assert f"requests_per_minute of {whose}: " in error.message
    assert error.violation is not None
    assert (error.violation.subject, error.violation.model) == (subject, model)
    assert error.violation.scope == scope.lower()


def test_a_time_that_is_over_by_the_clock_here_is_still_a_time() -> None:
    error = refusal_error(refusal("REQUESTS_PER_MINUTE", wait_s=-1), PAYER, NOW_MS)
    assert error.retry_after_s is not None
    assert error.retry_after_s > 0


def test_one_of_several_requests_waits_until_all_of_them_fit() -> None:
    of_minute = LimitState(kind=LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE, reset_ms=NOW_MS + 61_000)
    of_day = LimitState(kind=LimitKind.LIMIT_KIND_TOKENS_PER_DAY, reset_ms=NOW_MS + 80_000_000)
    limits = [of_minute, of_day]
    soon = QuotaReply(refusal=refusal("TOKENS_PER_MINUTE"), limits=limits)
    assert until_all_fit(soon).refusal.retry_after_ms == NOW_MS + 61_000
    late = QuotaReply(refusal=refusal("TOKENS_PER_DAY"), limits=limits)
    assert until_all_fit(late) == late
