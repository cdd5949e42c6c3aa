"""Prices are added, published, and never changed once they are in force."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace.internal.v1.access_pb2 import PriceRow
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import Price
from headrace_control.store import PageOptions, Store, price_at
from headrace_control.store.database.opening import open_engine
from helpers.control_store import ROOT, TestClock, replay

PRICE = Price("valley", "USD", None, 150, 75, 600)


async def test_a_price_is_published_from_when_it_holds(store: Store, clock: TestClock) -> None:
    made = await store.prices.create(PRICE, by=ROOT)
    assert made == replace(
        PRICE, price_id=made.price_id, valid_from=clock.now, create_time=clock.now
    )
    assert await store.prices.get(made.price_id) == made
    table = (await replay(store))["prices"]
    assert table == (await store.outbox.all_rows())["prices"]
    row = PriceRow.FromString(table[made.price_id])
    assert (row.model, row.currency, row.valid_from_ms) == ("valley", "USD", 1_790_000_000_000)
    assert (row.input_nanos, row.cached_input_nanos, row.output_nanos) == (150, 75, 600)


async def test_only_prices_to_come_are_made_and_deleted(store: Store, clock: TestClock) -> None:
    with pytest.raises(FailedPrecondition, match="has passed"):
        await store.prices.create(replace(PRICE, valid_from=clock.after(-0.001)), by=ROOT)
    made = await store.prices.create(replace(PRICE, valid_from=clock.after(60)), by=ROOT)
    with pytest.raises(ResourceExists):
        await store.prices.create(replace(PRICE, valid_from=clock.after(60)), by=ROOT)
    await store.prices.delete(made.price_id, by=ROOT)
    assert (await replay(store))["prices"] == {}
    with pytest.raises(ResourceNotFound):
        await store.prices.delete(made.price_id, by=ROOT)
    again = await store.prices.create(replace(PRICE, valid_from=clock.after(60)), by=ROOT)
    clock.advance(60)
    with pytest.raises(FailedPrecondition, match="has been in force"):
        await store.prices.delete(again.price_id, by=ROOT)
    actions = [each.action for each in (await store.audit.list()).items]
    assert actions == ["prices.create", "prices.delete", "prices.create"]


async def test_the_price_of_a_time_is_the_last_that_began_by_then(
    store: Store, clock: TestClock, database_url: str
) -> None:
    await store.prices.create(PRICE, by=ROOT)
    for output_nanos, after_s in ((900, 120), (700, 60)):
        later = replace(PRICE, output_nanos=output_nanos, valid_from=clock.after(after_s))
        await store.prices.create(later, by=ROOT)
    await store.prices.create(replace(PRICE, currency="EUR", output_nanos=1), by=ROOT)
    engine = open_engine(database_url)

    async def at(seconds: float, *, model: str = "valley", currency: str = "USD") -> int | None:
        time_ms = milliseconds(clock.now + timedelta(seconds=seconds))
        async with engine.connect() as connection:
            found = await price_at(connection, model, currency, time_ms)
        return None if found is None else found.output_nanos

    assert [await at(s) for s in (-0.001, 0, 59.999, 60, 119.999, 120, 10**6)] == [
        *(None, 600, 600, 700, 700, 900, 900)
    ]
    assert await at(500, currency="EUR") == 1
    assert await at(500, currency="CHF") is None
    assert await at(500, model="other") is None
    await engine.dispose()


async def test_prices_are_listed_by_model_currency_and_time(store: Store, clock: TestClock) -> None:
    for model in ("b", "a"):
        for seconds in (9, 3):
            price = replace(PRICE, model=model, valid_from=clock.after(seconds))
            await store.prices.create(price, by=ROOT)
    await store.prices.create(replace(PRICE, model="a", currency="CHF"), by=ROOT)
    first = await store.prices.list(options=PageOptions(size=3))
    rest = await store.prices.list(options=PageOptions(token=first.next_page_token))
    found = [(each.model, each.currency, each.valid_from) for each in (*first.items, *rest.items)]
    assert found == sorted(found)
    assert len(found) == 5
    assert len((await store.prices.list(model="a", currency="USD")).items) == 2
