"""The headers that say what is left of limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.internal.v1.quota_pb2 import LimitKind, LimitScope, LimitState
from headrace_gateway.quota.headers import anthropic_headers, duration_text, rate_limit_headers

NOW_MS = 1_800_000_000_000
REQUESTS_PER_MINUTE = LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE
REQUESTS_PER_DAY = LimitKind.LIMIT_KIND_REQUESTS_PER_DAY
TOKENS_PER_MINUTE = LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE
CONCURRENT_REQUESTS = LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS
BUDGET_PER_MONTH = LimitKind.LIMIT_KIND_BUDGET_PER_MONTH


def state(
    kind: LimitKind.ValueType, limit: int, remaining: int, *, reset_s: float = 60.0
) -> LimitState:
    return LimitState(
        kind=kind,
        scope=LimitScope.LIMIT_SCOPE_TENANT,
        limit=limit,
        remaining=remaining,
        reset_ms=NOW_MS + int(reset_s * 1000),
    )


def headers(*limits: LimitState) -> dict[str, str]:
    return dict(rate_limit_headers(limits, NOW_MS))


def test_each_kind_of_limit_has_its_three_headers() -> None:
    shown = headers(
        state(REQUESTS_PER_MINUTE, 20, 19), state(TOKENS_PER_MINUTE, 4000, 3900, reset_s=360)
    )
    assert shown == {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "19",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "4000",
        "x-ratelimit-remaining-tokens": "3900",
        "x-ratelimit-reset-tokens": "6m0s",
    }


def test_anthropics_say_when_a_limit_resets() -> None:
    minute = state(REQUESTS_PER_MINUTE, 20, 19)
    assert dict(anthropic_headers([minute], minute.reset_ms - 59_500)) == {
        "anthropic-ratelimit-requests-limit": "20",
        "anthropic-ratelimit-requests-remaining": "19",
        "anthropic-ratelimit-requests-reset": time_of(minute.reset_ms),
    }
    late = minute.reset_ms + 10_001
    found = dict(anthropic_headers([minute], late))
    assert found["anthropic-ratelimit-requests-reset"] == time_of(late + 999)
    assert anthropic_headers([], late) == ()


def time_of(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_of_two_limits_the_one_is_shown_that_refuses_first() -> None:
    minute, day = state(REQUESTS_PER_MINUTE, 20, 7), state(REQUESTS_PER_DAY, 1000, 8, reset_s=9000)
    assert headers(minute, day)["x-ratelimit-limit-requests"] == "20"
    day.remaining = 6
    assert headers(minute, day)["x-ratelimit-limit-requests"] == "1000"


def test_of_two_with_nothing_left_the_later_reset_is_shown() -> None:
    minute, day = state(REQUESTS_PER_MINUTE, 20, 0), state(REQUESTS_PER_DAY, 1000, 0, reset_s=9000)
    assert headers(minute, day)["x-ratelimit-reset-requests"] == "2h30m0s"


def test_limits_of_other_kinds_are_not_shown() -> None:
    assert headers(state(CONCURRENT_REQUESTS, 4, 1), state(BUDGET_PER_MONTH, 10, 1)) == {}
    assert headers() == {}


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        *((-5, "0s"), (0, "0s"), (1, "1s"), (1000, "1s"), (1001, "2s")),
        *((59_000, "59s"), (60_000, "1m0s"), (360_000, "6m0s"), (7_209_000, "2h0m9s")),
    ],
)
def test_a_time_is_written_as_go_writes_it(milliseconds: int, text: str) -> None:
    assert duration_text(milliseconds) == text


@given(st.integers(0, 10**9))
def test_a_written_time_is_never_shorter_than_the_time(milliseconds: int) -> None:
    text, seconds = duration_text(milliseconds), 0
    for unit, worth in (("h", 3600), ("m", 60), ("s", 1)):
        if unit in text:
            number, _, text = text.partition(unit)
            seconds += int(number) * worth
    assert 0 <= seconds * 1000 - milliseconds < 1000
