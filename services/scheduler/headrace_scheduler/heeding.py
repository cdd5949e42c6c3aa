"""Cancellations that got lost, found again."""

from __future__ import annotations

import asyncio


def heed() -> None:
    """Raise CancelledError if this task was cancelled and something has swallowed it.

    Loops call it after each call to the broker.
    """
    # Why: asyncio.wait_for of Python 3.11, which the broker's client waits with, returns
    # the result and forgets the cancellation if both come in one turn of the loop. The
    # loop would go on, and its task group wait for it for ever.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
