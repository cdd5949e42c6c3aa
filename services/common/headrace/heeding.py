"""Cancellations that got lost, found again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def heed() -> None:
    """Raise CancelledError if this task was cancelled and something has swallowed it."""
    # Why: asyncio.wait_for of Python 3.11, which the broker's client waits with, returns
    # the result and forgets the cancellation if both come in one turn of the loop. A loop
    # would go on, and its task group wait for it for ever.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def heeding(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Have a call heed a cancellation that was lost while it waited."""

    @wraps(call)
    async def heeded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        finally:
            heed()

    return heeded
