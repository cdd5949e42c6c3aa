"""Where a request is, as leaders answer: one call, whose verb finds, cancels or takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from headrace.bus import BusError, Messages, subjects
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse


async def ask_leaders(
    bus: Messages, models: Iterable[str], message: LocateRequest, *, timeout_s: float
) -> list[LocateResponse | None]:
    """Return the answer of each model's leader, at once; None of one that does not answer."""
    payload = message.SerializeToString()

    async def ask(model: str) -> LocateResponse | None:
        try:
            answer = await bus.request(subjects.locate(model), payload, timeout_s=timeout_s)
        except BusError:
            return None
        return LocateResponse.FromString(answer)

    return list(await asyncio.gather(*map(ask, models)))
