"""Rows are deleted once they are old and in a closed statement; their sums stay."""

from __future__ import annotations

from datetime import timedelta

from headrace_control.base.records import Tenant
from headrace_control.store import Store
from headrace_control.store.usage.sums import NO_END_MS, UsageFilter
from helpers.control_store import ROOT, TestClock
from helpers.usage_records import START_MS, usage_message

DAY_MS = 86_400_000


async def ended(store: Store) -> list[tuple[str, int]]:
    rows = (await store.usage_rows.page()).items
    return [(row["tenant"], (row["end_ms"] - START_MS) // DAY_MS) for row in rows]


async def test_only_old_rows_of_closed_months_are_deleted(store: Store, clock: TestClock) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    days = (0, 1, 40)
    await store.usage.record(
        [
            usage_message(n, arrival_ms=START_MS + 1, end_ms=START_MS + day * DAY_MS + 2)
            for n, day in enumerate(days, 1)
        ]
    )
    # A tenant that control does not know owes nothing.
    await store.usage.record([usage_message(9, tenant="unknown")])
    sums = await store.usage_sums.sums(UsageFilter(), ("tenant",))
    before_ms = START_MS + 30 * DAY_MS
    clock.advance(60 * 86_400)
    assert await store.old_usage_rows.delete(before_ms) == 1
    assert await ended(store) == [("acme", day) for day in days]

    await store.statements.close_due(timedelta(days=3))
    # It is recorded after the statement was closed, and is in the next one.
    await store.usage.record([usage_message(10, arrival_ms=START_MS + 1)])
    assert await store.old_usage_rows.delete(before_ms) == 2
    assert await store.old_usage_rows.delete(before_ms) == 0
    assert await ended(store) == [("acme", 0), ("acme", 40)]

    later = await store.usage_sums.sums(UsageFilter(), ("tenant",))
    assert [each["requests"] for each in later] == [sums[0]["requests"] + 1, 1]
    assert await store.usage_checks.differences(0, NO_END_MS) == []
