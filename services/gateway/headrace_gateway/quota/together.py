"""Reserves for several requests at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterable

from headrace.errors import HeadraceError


async def all_or_worst(charges: Iterable[Awaitable[None]]) -> None:
    """Wait for all of them.

    Raises:
        HeadraceError: the one that lasts longest.
    """
    results = await asyncio.gather(*charges, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, HeadraceError):
            raise error
    if errors:
        raise max(errors, key=_lasting_s)


def _lasting_s(error: BaseException) -> float:
    """Return how long the same call is refused."""
    wait_s: float | None = getattr(error, "retry_after_s", None)
    return math.inf if wait_s is None else wait_s
