"""When a day began, and how often control is asked what was used since."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from headrace.internal.v1.own_usage_pb2 import OwnUsageResponse
from headrace_gateway.quota.usage_today import KEPT_S, UsageToday, midnight_ms


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        ("", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("Europe/Zurich", datetime(2026, 11, 30, 23, 0, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2026, 11, 30, 8, 0, tzinfo=UTC)),
    ],
)
def test_a_day_begins_at_the_tenants_midnight(zone: str, midnight: datetime) -> None:
    now = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert midnight_ms(now.timestamp(), zone) == midnight.timestamp() * 1000


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return 1_790_000_000.0


class Control:
    """Counts its calls, and answers once it may."""

    def __init__(self) -> None:
        self.calls, self.may_answer = 0, asyncio.Event()

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        self.calls += 1
        await self.may_answer.wait()
        return OwnUsageResponse(requests=self.calls).SerializeToString()


async def test_callers_that_ask_at_once_and_again_share_an_answer_for_a_second() -> None:
    control, clock = Control(), ManualClock()
    today = UsageToday(control, clock)
    first = asyncio.create_task(today.find("acme", "k", ""))
    others = [asyncio.create_task(today.find("acme", "k", "")) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    control.may_answer.set()
    found = await asyncio.gather(*others)
    assert [each and each.requests for each in found] == [2] * 5, "the first one had left"
    assert await today.find("acme", "k", "") == found[0]
    assert (await today.find("acme", "other", "")) != found[0]
    clock.now_s += KEPT_S
    again = await today.find("acme", "k", "")
    assert (again and again.requests, control.calls) == (4, 4)
