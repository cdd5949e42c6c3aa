"""The caller of the call that this task serves."""

from __future__ import annotations

from contextvars import ContextVar

from headrace.auth.caller import Caller

CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller(anonymous=True))  # noqa: B039  # frozen


def current_caller() -> Caller:
    return CALLER.get()
