"""Sums of usage, by whatever it is grouped: exact for every range of time.

Whole hours come from the roll-up, the rest from rows. Rows of old closed months are deleted, so
what is older than that is exact for whole hours only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from headrace.errors import InvalidRequest
from headrace_control.base.accounts.usage import COSTS, HOUR_MS, SUMS, TOKENS, Values
from headrace_control.store.billing.accounts import own_since_ms
from headrace_control.store.billing.prices import first_times
from headrace_control.store.database.billing_tables import usage, usage_hour
from headrace_control.store.database.transactions import Database

GROUPS = ("tenant", "model", "key_id", "person", "batch", "kind", "currency")
"""What sums can be grouped by, besides time."""
NO_END_MS = 2**53
"""As `until_ms`: there is no end."""
MAX_SUMS = 50_000
"""Of one call: some 10 MB of an answer, and of this process's memory several times as much."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage is summed; an empty list is all."""

    since_ms: int = 0
    until_ms: int = NO_END_MS
    """Of ends; exclusive."""
    tenants: Sequence[str] = ()
    models: Sequence[str] = ()
    keys: Sequence[str] = ()
    persons: Sequence[str] = ()
    kinds: Sequence[int] = ()
    batch: bool | None = None


class UsageSums:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def own_since_ms(self, tenant: str) -> int:
        """Return from when on usage under this name is of the tenant that has it now: what a
        deleted one has used before is none of its business. 0: from the first on."""
        async with self._database.reading() as connection:
            return await own_since_ms(connection, tenant)

    async def unpriced(self, which: UsageFilter) -> list[str]:
        """Return the models that have used tokens, cost nothing, and have no price in the currency
        of their tenant, by name."""
        found = await self.sums(which, ("model", "currency"))
        async with self._database.reading() as connection:
            priced = await first_times(connection)
        return sorted(
            {
                each["model"]
                for each in found
                if not each["cost_nanos"]
                and each["input_tokens"] + each["output_tokens"]
                and (each["model"], each["currency"]) not in priced
            }
        )

    async def sums(
        self, which: UsageFilter, by: Sequence[str] = (), *, every_ms: int = 0
    ) -> list[Values]:
        """Return sums, ordered by their time and groups; none for what has no usage.

        Args:
            by: some of GROUPS.
            every_ms: minutes, hours or days, which begin in UTC; 0: all of the time is one.

        Raises:
            InvalidRequest: there are more than MAX_SUMS.

        Returns:
            Of each group: `begin_ms` and the values of `by`; `requests`, numbers of tokens, and
            costs in nano-units, which add up within one `currency` only.
        """
        facts = facts_of(which, every_ms).subquery()
        begin = facts.c.time_ms - facts.c.time_ms % every_ms if every_ms else sa.literal(0)
        groups = [facts.c[name] for name in by]
        totals = [sa.func.sum(facts.c[name]).label(name) for name in (*SUMS, *COSTS)]
        keys = [begin.label("begin_ms"), *groups]
        query = sa.select(*keys, *totals).group_by(*keys).order_by(*keys)
        query = query.having(sa.func.count() > 0)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(MAX_SUMS + 1))).mappings().all()
        if len(rows) > MAX_SUMS:
            raise InvalidRequest(
                f"there are more than {MAX_SUMS} sums: ask for less time, longer parts of it or"
                " fewer groups"
            )
        return [_plain(dict(row)) for row in rows]


def _plain(row: Values) -> Values:
    # PostgreSQL's sums of integers are decimals.
    row |= {name: int(row[name]) for name in (*SUMS, *COSTS, "begin_ms")}
    row["cost_nanos"] = sum(row[name] for name in COSTS)
    return row


def facts_of(which: UsageFilter, every_ms: int) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Return a query of what is to be summed."""
    since, until = which.since_ms, which.until_ms
    first, end = -(-since // HOUR_MS) * HOUR_MS, until // HOUR_MS * HOUR_MS
    if every_ms % HOUR_MS or first >= end:
        return _rows(which, since, until)
    parts = [_hours(which, first, end)]
    if since < first:
        parts.append(_rows(which, since, first))
    if end < until and until < NO_END_MS:
        parts.append(_rows(which, end, until))
    return sa.union_all(*parts) if len(parts) > 1 else parts[0]


def _hours(which: UsageFilter, since_ms: int, until_ms: int) -> sa.Select[Any]:
    columns = (usage_hour.c[name] for name in (*GROUPS, *SUMS, *COSTS))
    query = sa.select(usage_hour.c.hour_ms.label("time_ms"), *columns)
    query = query.where(usage_hour.c.hour_ms >= since_ms, usage_hour.c.hour_ms < until_ms)
    return query.where(*_conditions(which, usage_hour, usage_hour.c.batch))


def _rows(which: UsageFilter, since_ms: int, until_ms: int) -> sa.Select[Any]:
    is_batch = usage.c.batch_id != ""
    query = row_facts(usage.c.end_ms.label("time_ms"))
    query = query.where(usage.c.end_ms >= since_ms, usage.c.end_ms < until_ms)
    return query.where(*_conditions(which, usage, is_batch))


def row_facts(time: sa.ColumnElement[int]) -> sa.Select[Any]:
    """Return a query of billed rows with the columns of the roll-up, and `time`."""
    computed = usage.c.input_tokens - usage.c.cached_input_tokens
    groups: dict[str, sa.ColumnElement[Any]] = {n: usage.c[n] for n in GROUPS if n != "batch"}
    groups["batch"] = (usage.c.batch_id != "").label("batch")
    return sa.select(
        time,
        *(groups[name] for name in GROUPS),
        sa.literal(1).label("requests"),
        *(usage.c[name] for name in TOKENS),
        (computed * usage.c.input_nanos).label("input_cost_nanos"),
        (usage.c.cached_input_tokens * usage.c.cached_nanos).label("cached_cost_nanos"),
        (usage.c.output_tokens * usage.c.output_nanos).label("output_cost_nanos"),
    ).where(usage.c.billed)


def _conditions(
    which: UsageFilter, table: sa.Table, batch: sa.ColumnElement[bool]
) -> Iterator[sa.ColumnElement[bool]]:
    lists = {
        "tenant": which.tenants,
        "model": which.models,
        "key_id": which.keys,
        "person": which.persons,
        "kind": which.kinds,
    }
    for name, values in lists.items():
        if values:
            yield table.c[name].in_(values)
    if which.batch is not None:
        yield batch if which.batch else sa.not_(batch)
