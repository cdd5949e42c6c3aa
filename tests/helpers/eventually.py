"""Waiting for something to become true, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(
    is_true: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within_s: float = 5.0
) -> None:
    """Return as soon as `is_true`; AssertionError, naming it, after `within_s`."""
    end_s = time.monotonic() + within_s
    while True:
        answer = is_true()
        if isinstance(answer, bool):
            if answer:
                return
        elif await answer:
            return
        assert time.monotonic() < end_s, f"not within {within_s:g} s: {is_true}"
        await asyncio.sleep(0.01)
