"""Whether the sums of hours are the sums of their rows, and sums made again from rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.usage import COSTS, HOUR_KEY, HOUR_MS, SUMS, Values
from headrace_control.store.database.billing_tables import usage, usage_hour, usage_position
from headrace_control.store.database.transactions import Database
from headrace_control.store.usage.leaderships import SettledDifference, settled_differences
from headrace_control.store.usage.ledger import add_hours
from headrace_control.store.usage.sums import row_facts

_TOTALS = (*SUMS, *COSTS)
_MOST = 1000


@dataclass(frozen=True, slots=True)
class SumDifference:
    """Sums of an hour that are not those of its rows."""

    key: Values
    """By the columns of the roll-up's key."""
    by_column: dict[str, int]
    """What the rows have more than the sums; those that are equal are left out."""


class UsageChecks:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, since_ms: int, until_ms: int) -> int:
        """Return how many rows ended in this time."""
        query = sa.select(sa.func.count()).select_from(usage)
        query = query.where(usage.c.end_ms >= since_ms, usage.c.end_ms < until_ms)
        async with self._database.reading() as connection:
            return await connection.scalar(query) or 0

    async def settled_differences(self, since_ms: int, until_ms: int) -> list[SettledDifference]:
        """Return where rows are not what leaders have counted; see `leaderships`."""
        async with self._database.reading() as connection:
            return await settled_differences(connection, since_ms, until_ms)

    async def differences(
        self, since_ms: int, until_ms: int, *, repair: bool = False
    ) -> list[SumDifference]:
        """Return what differs in the hours of this time that have all of their rows still, at most
        a thousand.

        Args:
            repair: make these sums what the rows say, in the same transaction.
        """
        if not repair:
            async with self._database.reading() as connection:
                return await _differences(connection, since_ms, until_ms)
        async with self._database.writing() as connection:
            # No row comes in between.
            await connection.execute(sa.select(usage_position).with_for_update())
            found = await _differences(connection, since_ms, until_ms)
            for each in found:
                is_key = (usage_hour.c[name] == value for name, value in each.key.items())
                await connection.execute(sa.delete(usage_hour).where(*is_key))
            if found:
                await add_hours(connection, await _hours_of(connection, found))
        return found


async def _differences(
    connection: AsyncConnection, since_ms: int, until_ms: int
) -> list[SumDifference]:
    kept = await connection.scalar(sa.select(usage_position.c.rows_since_ms)) or 0
    first = -(-max(since_ms // HOUR_MS * HOUR_MS, kept) // HOUR_MS) * HOUR_MS
    end = -(-until_ms // HOUR_MS) * HOUR_MS
    rows = _row_hours(first, end).subquery()
    keys = [rows.c[name] for name in HOUR_KEY]
    sums = sa.select(*keys, *(rows.c[name] for name in _TOTALS))
    hours = sa.select(
        *(usage_hour.c[name] for name in HOUR_KEY),
        *((-usage_hour.c[name]).label(name) for name in _TOTALS),
    ).where(usage_hour.c.hour_ms >= first, usage_hour.c.hour_ms < end)
    both = sa.union_all(sums, hours).subquery()
    totals = [sa.func.sum(both.c[name]).label(name) for name in _TOTALS]
    groups = [both.c[name] for name in HOUR_KEY]
    query = sa.select(*groups, *totals).group_by(*groups).order_by(*groups)
    query = query.having(sa.or_(*(sa.func.sum(both.c[name]) != 0 for name in _TOTALS)))
    found = (await connection.execute(query.limit(_MOST))).mappings().all()
    return [
        SumDifference(
            {name: row[name] for name in HOUR_KEY},
            {name: int(row[name]) for name in _TOTALS if row[name]},
        )
        for row in found
    ]


async def _hours_of(connection: AsyncConnection, differences: list[SumDifference]) -> list[Values]:
    """Return the sums that the rows of these keys have, in the order of the keys."""
    times = [each.key["hour_ms"] for each in differences]
    keys = {tuple(each.key[name] for name in HOUR_KEY) for each in differences}
    query = _row_hours(min(times), max(times) + HOUR_MS)
    found = (await connection.execute(query)).mappings().all()
    hours = [
        {name: row[name] for name in HOUR_KEY} | {name: int(row[name]) for name in _TOTALS}
        for row in found
        if tuple(row[name] for name in HOUR_KEY) in keys
    ]
    return sorted(hours, key=lambda hour: tuple(hour[name] for name in HOUR_KEY))


def _row_hours(since_ms: int, until_ms: int) -> sa.Select[Any]:
    """Return a query of the sums of rows, as the roll-up has them."""
    hour = (usage.c.end_ms - usage.c.end_ms % HOUR_MS).label("hour_ms")
    ended = sa.and_(usage.c.end_ms >= since_ms, usage.c.end_ms < until_ms)
    facts = row_facts(hour).where(ended).subquery()
    keys = [facts.c[name] for name in HOUR_KEY]
    totals = [sa.func.sum(facts.c[name]).label(name) for name in _TOTALS]
    return sa.select(*keys, *totals).group_by(*keys)
