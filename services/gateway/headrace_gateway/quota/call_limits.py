"""The limits that apply to the call that this task serves, for the headers of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from headrace.internal.v1.quota_pb2 import LimitState
from headrace_gateway.quota.headers import Headers, rate_limit_headers

_CALL: ContextVar[CallLimits | None] = ContextVar("call_limits", default=None)


class CallLimits:
    """What the quota keeper last answered to a request of the call."""

    def __init__(self) -> None:
        self.headers: Headers = ()
        """Empty until a request is reserved or refused, and where no limit applies."""

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
        call.headers = rate_limit_headers(limits, now_ms)
