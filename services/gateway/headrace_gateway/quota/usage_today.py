"""What a caller has used today, which control knows."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from google.protobuf.message import DecodeError

from headrace.bus import BusError, subjects
from headrace.clock import Clock
from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse

ANSWER_S = 1.0
KEPT_S = 1.0
"""How long an answer is given again: callers that ask without a pause cost the database little."""
MAX_KEPT = 10_000


def midnight_ms(now_s: float, time_zone: str) -> int:
    """Return when the day began in a time zone, by its IANA name; empty: UTC."""
    now = datetime.fromtimestamp(now_s, ZoneInfo(time_zone or "UTC"))
    return round(now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)


class Requests(Protocol):
    """Of the bus."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes: ...


class _Answer:
    """The last answer for one key, and when it came; callers that wait for one share it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.usage: OwnUsageResponse | None = None
        self.at_s = -math.inf


class UsageToday:
    """Calls the active control process."""

    def __init__(self, messages: Requests, clock: Clock) -> None:
        self._messages, self._clock = messages, clock
        self._answers: dict[tuple[str, str, int], _Answer] = {}

    async def find(self, tenant: str, key_id: str, time_zone: str) -> OwnUsageResponse | None:
        """Return what the key, or without one the tenant, has used since midnight, up to a second
        ago; None: control does not answer."""
        since_ms = midnight_ms(self._clock.unix_s(), time_zone)
        if len(self._answers) >= MAX_KEPT:
            self._answers.clear()
        answer = self._answers.setdefault((tenant, key_id, since_ms), _Answer())
        async with answer.lock:
            if self._clock.monotonic_s() >= answer.at_s + KEPT_S:
                asked = OwnUsageRequest(tenant=tenant, key_id=key_id, since_ms=since_ms)
                answer.usage = await self._ask(asked)
                answer.at_s = self._clock.monotonic_s()
        return answer.usage

    async def _ask(self, asked: OwnUsageRequest) -> OwnUsageResponse | None:
        try:
            answer = await self._messages.request(
                subjects.OWN_USAGE, asked.SerializeToString(), timeout_s=ANSWER_S
            )
            return OwnUsageResponse.FromString(answer)
        except (BusError, DecodeError):
            return None
