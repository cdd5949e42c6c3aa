"""Rows have the price of their time, and events follow from them, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from headrace_control.base.records import Key, Limits, Plan, Price, Tenant
from headrace_control.store import Store
from headrace_control.store.database.opening import open_engine
from headrace_control.store.database.webhook_tables import webhook_endpoints, webhook_events
from headrace_control.store.usage.sums import UsageFilter
from helpers.control_store import ROOT, TestClock, make_key
from helpers.usage_records import START_MS, usage_message

ALL = UsageFilter()


@pytest.fixture
async def acme(store: Store, clock: TestClock, database_url: str) -> None:
    """A tenant in Tokyo with a budget of 1000 yen-nanos, a key with one of 400, and a webhook."""
    limits = Limits(budget_nanos_per_month=1000)
    await store.plans.create(Plan("small", limits=limits), by=ROOT)
    tenant = Tenant("acme", plan="small", currency="JPY", time_zone="Asia/Tokyo")
    await store.tenants.create(tenant, by=ROOT)
    await make_key(store, Key("k1", "acme", limits=replace(limits, budget_nanos_per_month=400)))
    for valid_from, nanos in ((None, 1), (clock.after(60), 10)):
        price = Price("valley", "JPY", valid_from, 10 * nanos, nanos, 20 * nanos)
        await store.prices.create(price, by=ROOT)
    await subscribe(database_url)


async def subscribe(database_url: str) -> None:
    engine = open_engine(database_url)
    values = dict.fromkeys(webhook_endpoints.c.keys(), "") | {
        "endpoint_id": "we_1",
        "tenant": "acme",
        "event_types": "[]",
        "create_ms": 0,
        "update_ms": 0,
    }
    async with engine.begin() as connection:
        await connection.execute(sa.insert(webhook_endpoints).values(values))
    await engine.dispose()


async def events(database_url: str) -> list[tuple[str, str]]:
    engine = open_engine(database_url)
    async with engine.connect() as connection:
        query = sa.select(webhook_events.c.type, webhook_events.c.data_id)
        found = [(row.type, row.data_id) for row in await connection.execute(query)]
    await engine.dispose()
    return sorted(found)


@pytest.mark.usefixtures("acme")
async def test_a_row_has_the_price_of_the_time_when_it_ended(store: Store) -> None:
    ends = [START_MS + ms for ms in (-1, 0, 59_999, 60_000)]
    await store.usage.record([usage_message(n, end_ms=ms) for n, ms in enumerate(ends, 1)])
    rows = (await store.usage_rows.page()).items
    # 6 tokens of input, 4 cached ones, 5 of output.
    assert [row["cost_nanos"] for row in rows] == [0, 164, 164, 1640]
    assert {row["currency"] for row in rows} == {"JPY"}
    (sums,) = await store.usage_sums.sums(ALL, ("currency",))
    assert (sums["currency"], sums["cost_nanos"]) == ("JPY", 1968)


async def test_without_a_price_and_a_tenant_usage_is_counted_and_costs_nothing(
    store: Store,
) -> None:
    await store.usage.record([usage_message(1, tenant="gone", model="unpriced")])
    (row,) = (await store.usage_rows.page("gone")).items
    assert (row["currency"], row["cost_nanos"], row["output_tokens"]) == ("USD", 0, 5)


@pytest.mark.usefixtures("acme")
async def test_each_threshold_of_a_budget_is_one_event(store: Store, database_url: str) -> None:
    month, key = "month/2026-09-01", "keys/k1/month/2026-09-01"
    kind = "budget.threshold_reached"
    await store.usage.record([usage_message(1), usage_message(2)])  # 328 of 400 and 1000
    assert await events(database_url) == [(kind, f"{key}/50"), (kind, f"{key}/80")]
    for position in (3, 4, 5, 6, 7):  # 1148
        await store.usage.record([usage_message(position)])
    reached = [(kind, f"{of}/{p}") for of in (key, month) for p in (50, 80, 100)]
    assert await events(database_url) == sorted(reached)
    # The next month has a budget of its own. It begins in Tokyo; 840 by the later price.
    october_ms = 1_790_780_400_000
    free: dict[str, Any] = {"key_id": "", "input_tokens": 4, "output_tokens": 4}
    for position, ms in ((8, october_ms - 1), (9, october_ms)):
        await store.usage.record([usage_message(position, end_ms=ms, **free)])
    october = [(kind, f"month/2026-10-01/{p}") for p in (50, 80)]
    assert await events(database_url) == sorted(reached + october)


@pytest.mark.usefixtures("acme")
async def test_the_end_of_a_background_request_is_an_event(store: Store, database_url: str) -> None:
    free: dict[str, Any] = {"detached": True, "model": "unpriced"}
    messages = [
        usage_message(1, **free),
        usage_message(2, code=13, **free),
        usage_message(3, code=1, **free),
        usage_message(4, batch_id="batch_1", batch_line=1, **free),
        usage_message(5, model="unpriced"),
    ]
    await store.usage.record(messages)
    await store.usage.record([usage_message(6, 1, **free)])
    assert await events(database_url) == [
        ("response.cancelled", "req-3"),
        ("response.completed", "req-1"),
        ("response.failed", "req-2"),
    ]


@pytest.mark.usefixtures("acme")
async def test_a_tenant_that_takes_a_deleted_ones_name_gets_events_of_its_own_usage_alone(
    store: Store, clock: TestClock, database_url: str
) -> None:
    """Its budget is whole, and what the deleted one has used is announced to it neither."""
    await store.usage.record([usage_message(n, key_id="") for n in range(1, 4)])  # 492 of 1000
    await store.tenants.delete("acme", force=True, by=ROOT)
    clock.advance(10)
    tenant = Tenant("acme", plan="small", currency="JPY", time_zone="Asia/Tokyo")
    await store.tenants.create(tenant, by=ROOT)
    await subscribe(database_url)
    own: dict[str, Any] = {"arrival_ms": START_MS + 20_000, "key_id": ""}
    later = [
        usage_message(4, key_id="", detached=True),
        usage_message(5, **own, detached=True),
        usage_message(6, **own),
        usage_message(7, **own),
    ]
    await store.usage.record(later)
    assert await events(database_url) == [("response.completed", "req-5")]
    await store.usage.record([usage_message(8, **own)])
    half = ("budget.threshold_reached", "month/2026-09-01/50")
    assert await events(database_url) == [half, ("response.completed", "req-5")]
