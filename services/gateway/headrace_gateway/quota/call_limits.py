"""What is noted of the call that this task serves while its requests are opened, for the headers of
its answer: the limits that apply to it, and whether a cache had them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from headrace.internal.v1.quota_pb2 import LimitState
from headrace_gateway.base.calls import CACHE_HEADER
from headrace_gateway.quota.headers import Headers, LimitHeaders, rate_limit_headers

HIT, MISS, BYPASS = CACHE_OUTCOMES = ("hit", "miss", "bypass")
"""In the header: from a cache, or shared with an equal request under way; computed, and cached now;
neither, for it may not be."""
_CALL: ContextVar[CallLimits | None] = ContextVar("call_limits", default=None)


class CallLimits:
    """What the quota keeper last answered to a request of the call."""

    def __init__(self, shown: LimitHeaders = rate_limit_headers) -> None:
        """`shown` makes the headers of the call's API."""
        self.shown = shown
        self.limits: Headers = ()
        """Empty until a request is reserved or refused, and where no limit applies."""
        self.cache = ""
        """One of CACHE_OUTCOMES; empty: it wants no cache."""

    @property
    def headers(self) -> Headers:
        return (*self.limits, *(((CACHE_HEADER, self.cache),) if self.cache else ()))

    @contextmanager
    def noted(self) -> Iterator[CallLimits]:
        """Note here the limits of every request that is opened in the `with`."""
        token = _CALL.set(self)
        try:
            yield self
        finally:
            _CALL.reset(token)


def note_limits(limits: Iterable[LimitState], now_ms: int) -> None:
    """Note the limits for the call that this task serves, if it serves one."""
    if (call := _CALL.get()) is not None:
        call.limits = call.shown(limits, now_ms)


def note_cache(outcome: str) -> None:
    """Note what a cache had of a request, one of CACHE_OUTCOMES. Of several of a call, the one that
    comes last there stands: a call is a hit only if all of it is."""
    if (call := _CALL.get()) is not None:
        call.cache = max(call.cache, outcome, key=("", *CACHE_OUTCOMES).index)
