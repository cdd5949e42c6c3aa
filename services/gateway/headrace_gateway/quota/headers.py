"""The headers of OpenAI's and Anthropic's APIs that say what is left of limits. Pure.

    x-ratelimit-limit-requests: 20          x-ratelimit-limit-tokens: 40000
    x-ratelimit-remaining-requests: 19      x-ratelimit-remaining-tokens: 39952
    x-ratelimit-reset-requests: 1m0s        x-ratelimit-reset-tokens: 1m0s

    anthropic-ratelimit-requests-limit: 20
    anthropic-ratelimit-requests-remaining: 19
    anthropic-ratelimit-requests-reset: 2026-07-01T12:01:00Z, and so for tokens

Of several limits of a kind, of a minute and a day, of a tenant and its key, the one with the least
left is shown: it is the one that refuses first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from headrace.internal.v1.quota_pb2 import LimitKind, LimitState

Headers = tuple[tuple[str, str], ...]
LimitHeaders = Callable[[Iterable[LimitState], int], Headers]
"""Makes the headers, at a time in milliseconds since 1970; none where no limit of requests or
tokens applies."""

_SHOWN = (
    (
        "requests",
        (LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE, LimitKind.LIMIT_KIND_REQUESTS_PER_DAY),
    ),
    ("tokens", (LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE, LimitKind.LIMIT_KIND_TOKENS_PER_DAY)),
)


def rate_limit_headers(limits: Iterable[LimitState], now_ms: int) -> Headers:
    """Return OpenAI's headers."""
    headers: list[tuple[str, str]] = []
    for name, least in _least_left(limits):
        headers += (
            (f"x-ratelimit-limit-{name}", str(least.limit)),
            (f"x-ratelimit-remaining-{name}", str(least.remaining)),
            (f"x-ratelimit-reset-{name}", duration_text(least.reset_ms - now_ms)),
        )
    return tuple(headers)


def anthropic_headers(limits: Iterable[LimitState], now_ms: int) -> Headers:
    """Return Anthropic's headers, whose resets are times."""
    headers: list[tuple[str, str]] = []
    for name, least in _least_left(limits):
        headers += (
            (f"anthropic-ratelimit-{name}-limit", str(least.limit)),
            (f"anthropic-ratelimit-{name}-remaining", str(least.remaining)),
            (f"anthropic-ratelimit-{name}-reset", _time_text(max(least.reset_ms, now_ms))),
        )
    return tuple(headers)


def _least_left(limits: Iterable[LimitState]) -> Iterator[tuple[str, LimitState]]:
    """Yield the limit to show of each kind that has any."""
    states = list(limits)
    for name, kinds in _SHOWN:
        if of_kind := [state for state in states if state.kind in kinds]:
            yield name, min(of_kind, key=lambda state: (state.remaining, -state.reset_ms))


def _time_text(milliseconds: int) -> str:
    """Return a time in whole seconds, rounded up: `2026-07-01T12:01:00Z`."""
    at = datetime.fromtimestamp(-(-milliseconds // 1000), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def duration_text(milliseconds: int) -> str:
    """Return a time in whole seconds, rounded up, as Go writes it: `0s`, `59s`, `6m0s`, `2h0m9s`.

    A time that is over is none.
    """
    seconds = max(0, -(-milliseconds // 1000))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
