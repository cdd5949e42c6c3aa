"""Answers gateways, and the quota keeper, that ask what a caller has used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.internal.v1.own_usage_pb2 import (
    OwnUsageRequest,
    OwnUsageResponse,
    UsagePart,
)
from headrace_control.base.accounts.usage import COSTS, Values
from headrace_control.store.usage.sums import UsageFilter

MAX_PARTS = 5000
"""Of one answer, which is a message of the broker's."""
SUMS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens")


class Sums(Protocol):
    """Of the store."""

    async def sums(
        self, which: UsageFilter, by: Sequence[str] = (), *, every_ms: int = 0
    ) -> list[Values]: ...

    async def own_since_ms(self, tenant: str) -> int: ...


class OwnUsage:
    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    async def answer(self, payload: bytes) -> bytes:
        """OwnUsageRequest -> OwnUsageResponse."""
        asked = OwnUsageRequest.FromString(payload)
        which = UsageFilter(
            since_ms=max(asked.since_ms, await self._sums.own_since_ms(asked.tenant)),
            tenants=[asked.tenant],
            keys=[asked.key_id] if asked.key_id else (),
        )
        response = OwnUsageResponse()
        for row in await self._sums.sums(which):
            for name in SUMS:
                setattr(response, name, row[name])
            response.cost_nanos = sum(row[name] for name in COSTS)
        if asked.in_parts:
            rows = await self._sums.sums(which, ("key_id", "model", "batch"))
            parts = sorted(map(_part, rows), key=lambda part: -part.tokens)
            response.parts.extend(parts[:MAX_PARTS])
        return response.SerializeToString()


def _part(row: Values) -> UsagePart:
    return UsagePart(
        key_id=row["key_id"],
        model=row["model"],
        batch=row["batch"],
        requests=row["requests"],
        tokens=row["input_tokens"] + row["output_tokens"],
        cost_nanos=sum(row[name] for name in COSTS),
    )
