"""Prices in the database. One that has been in force never changes: a later one is added."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import PRICES_TABLE
from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import Actor, Page, Price
from headrace_control.store.database.billing_tables import prices
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import price_of
from headrace_control.store.database.transactions import Change, Database

_ID_CHARACTERS = 32
_PRICES = Listing("prices", (prices.c.model, prices.c.currency, prices.c.valid_from_ms))


class Prices:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, price: Price, *, by: Actor) -> Price:
        """Create a price, and return it as it is kept.

        Raises:
            FailedPrecondition: its time has passed.
            ResourceExists: there is one of its model, currency and time.
        """
        async with self._database.changing(by) as change:
            return await _create(change, price)

    async def get(self, price_id: str) -> Price:
        """Return the price.

        Raises:
            ResourceNotFound: there is none.
        """
        async with self._database.reading() as connection:
            return await _price(connection, price_id)

    async def list(
        self, *, model: str = "", currency: str = "", options: PageOptions = FIRST_PAGE
    ) -> Page[Price]:
        """Return a page of prices, by model, currency and time.

        Args:
            model, currency: only of these; empty: of all.
        """
        query = sa.select(prices)
        if model:
            query = query.where(prices.c.model == model)
        if currency:
            query = query.where(prices.c.currency == currency)
        async with self._database.reading() as connection:
            return await _PRICES.page(connection, query, options, price_of)

    async def delete(self, price_id: str, *, by: Actor) -> None:
        """Delete a price that is not in force yet.

        Raises:
            ResourceNotFound: there is none.
            FailedPrecondition: it has been in force.
        """
        async with self._database.changing(by) as change:
            found = await _price(change.connection, price_id)
            if milliseconds(found.valid_from) <= change.now_ms:
                raise FailedPrecondition(
                    f"the price of {found.model} has been in force since {found.valid_from}, and"
                    " usage is billed by it: create one that holds from now on instead"
                )
            await change.execute(sa.delete(prices).where(prices.c.price_id == price_id))
            await change.record(
                "prices.delete", f"prices/{price_id}", details={"model": found.model}
            )
            await change.publish(PRICES_TABLE, [price_id])


async def price_at(
    connection: AsyncConnection, model: str, currency: str, time_ms: int
) -> Price | None:
    """Return the price of a model that is in force at a time; None if there is none."""
    query = sa.select(prices).where(
        prices.c.model == model,
        prices.c.currency == currency,
        prices.c.valid_from_ms <= time_ms,
    )
    query = query.order_by(prices.c.valid_from_ms.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else price_of(row)


async def first_times(connection: AsyncConnection) -> dict[tuple[str, str], int]:
    """Return from when on each model and currency has prices, in Unix milliseconds."""
    columns = prices.c.model, prices.c.currency
    query = sa.select(*columns, sa.func.min(prices.c.valid_from_ms).label("first"))
    rows = await connection.execute(query.group_by(*columns))
    return {(row.model, row.currency): row.first for row in rows}


async def _create(change: Change, price: Price) -> Price:
    valid_from = change.now if price.valid_from is None else price.valid_from
    if valid_from < change.now:
        raise FailedPrecondition(
            f"valid_from_time is {valid_from.isoformat()}, which has passed, and usage since then"
            " is billed already: give a later one, or none for now",
            field="price.valid_from_time",
        )
    at_ms = milliseconds(valid_from)
    key = f"{price.model}\0{price.currency}\0{at_ms}"
    price_id = sha256(key.encode(errors="replace")).hexdigest()[:_ID_CHARACTERS]
    query = sa.select(prices.c.price_id).where(prices.c.price_id == price_id)
    if await change.connection.scalar(query) is not None:
        raise ResourceExists(
            f"a price of {price.model} in {price.currency} from {valid_from.isoformat()} exists:"
            " delete it, or give another time"
        )
    details = {
        "model": price.model,
        "currency": price.currency,
        "valid_from_ms": at_ms,
        "input_nanos": price.input_nanos,
        "cached_input_nanos": price.cached_input_nanos,
        "output_nanos": price.output_nanos,
    }
    values = {"price_id": price_id, **details, "create_ms": change.now_ms}
    await change.execute(sa.insert(prices).values(values))
    await change.record("prices.create", f"prices/{price_id}", details=details)
    await change.publish(PRICES_TABLE, [price_id])
    return replace(price, price_id=price_id, valid_from=valid_from, create_time=change.now)


async def _price(connection: AsyncConnection, price_id: str) -> Price:
    query = sa.select(prices).where(prices.c.price_id == price_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"price {price_id} not found")
    return price_of(row)
