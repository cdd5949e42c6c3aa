"""Work around two faults of Python 3.11 that lose or invent cancellations of asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def recheck_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and a call has swallowed that."""
    # Why: asyncio.wait_for of Python 3.11, which the broker's client waits with, returns
    # the result and forgets the cancellation if both come in one turn of the loop. A loop
    # would go on, and its task group wait for it for ever.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def run_isolated(work: Coroutine[Any, Any, R]) -> R:
    """Await work that holds a task group which may fail, in a task of its own.

    If this call is cancelled, it cancels the work and waits for its end.
    """
    # Why: TaskGroup of Python 3.11 marks its own task as cancelled when a child fails, and
    # never takes that back. `recheck_cancelled`, and so every call of the bus, would take the
    # task for cancelled for good, although its failure has been handled.
    return await asyncio.create_task(work)


def rechecking_cancelled(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Wrap a call so that it raises a cancellation that was lost while it waited."""

    @wraps(call)
    async def rechecked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        finally:
            recheck_cancelled()

    return rechecked
