"""What each leadership has counted, beside the rows of what it has published.

The sum of its distinct records is what it has counted, for each tenant. A record is the row of the
leadership that published it first, and is noted for another that published it again:

    usage            requests:1 7    of leadership 1, 40 output tokens
    usage_repeated   requests:1 7    of leadership 2, which took over before 1 had acknowledged it
    usage_settled    leadership 1: 1 request, 40 output tokens; leadership 2: the same
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.usage import UsagePosition
from headrace.internal.v1.usage_pb2 import TenantTotals, UsageRecords
from headrace_control.base.accounts.usage import HOUR_MS, MAX_CHARACTERS, MAX_NANOS, Values
from headrace_control.store.database.billing_tables import (
    usage,
    usage_leaderships,
    usage_position,
    usage_repeated,
    usage_settled,
)
from headrace_control.store.database.transactions import inserting

UNKNOWN = 0
"""Leadership of rows that no leader has published, or of an earlier version of control."""
_COUNTED = ("requests", "input_tokens", "output_tokens")
_OLDER = ("older_requests", "older_input", "older_output")
_MOST = 1000


@dataclass(frozen=True, slots=True)
class SettledDifference:
    """What a leadership has counted for a tenant, and the rows are not."""

    tenant: str
    model: str
    epoch: int
    by_column: dict[str, int]
    """What the rows have more than was counted; those that are equal are left out."""


class Leaderships:
    """Those of some messages; made in the transaction that stores the messages."""

    def __init__(self, connection: AsyncConnection, numbers: dict[tuple[str, int], int]) -> None:
        self._connection, self._numbers = connection, numbers

    @classmethod
    async def of(
        cls, connection: AsyncConnection, published: Sequence[tuple[UsagePosition, UsageRecords]]
    ) -> Self:
        """Return the leaderships of messages of one stream; store those that are new, and what each
        has counted."""
        led = [(at, message) for at, message in published if _is_led(message)]
        found = cls(connection, {})
        if led:
            await found._find(led[0][0].stream, [message for _, message in led])
            await found._store_counted(led)
        return found

    def number(self, message: UsageRecords) -> int:
        return self._numbers.get((message.model, message.epoch), UNKNOWN)

    async def add_repeated(self, rows: Sequence[Values]) -> None:
        """Note records whose rows are another leadership's."""
        columns = [column.name for column in usage_repeated.columns]
        values = [{name: row[name] for name in columns} for row in rows if row["leadership"]]
        if values:
            insert = inserting(self._connection, usage_repeated)
            await self._connection.execute(insert.on_conflict_do_nothing(), values)

    async def _find(self, stream: str, messages: Sequence[UsageRecords]) -> None:
        table = usage_leaderships
        first_ms: dict[tuple[str, int], int] = {}
        for each in messages:
            ended_ms = min((record.end_ms for record in each.records), default=0)
            first_ms.setdefault((each.model, each.epoch), ended_ms)
        models = {model for model, _ in first_ms}
        query = sa.select(table).where(table.c.stream == stream, table.c.model.in_(models))
        query = query.where(table.c.epoch.in_({epoch for _, epoch in first_ms}))
        for row in await self._connection.execute(query):
            self._numbers[row.model, row.epoch] = row.leadership
        new = [key for key in first_ms if key not in self._numbers]
        if not new:
            return
        last = await self._connection.scalar(sa.select(sa.func.max(table.c.leadership))) or 0
        self._numbers |= {key: last + number for number, key in enumerate(new, 1)}
        values = [
            {
                "leadership": self._numbers[model, epoch],
                "stream": stream,
                "model": model,
                "epoch": epoch,
                "first_ms": first_ms[model, epoch],
            }
            for model, epoch in new
        ]
        await self._connection.execute(sa.insert(table), values)

    async def _store_counted(self, led: Sequence[tuple[UsagePosition, UsageRecords]]) -> None:
        """Store the last totals of these messages."""
        last: dict[tuple[int, str], Values] = {}
        for _, message in led:
            ended_ms = max((record.end_ms for record in message.records), default=0)
            for total in message.totals:
                if len(total.tenant) > MAX_CHARACTERS:
                    continue
                key = self.number(message), total.tenant
                counted = {name: min(getattr(total, name), MAX_NANOS) for name in _COUNTED}
                older = last.get(key) or _older(total, message)
                last[key] = {name: older[name] for name in _OLDER} | counted
                last[key] |= {"leadership": key[0], "tenant": key[1], "time_ms": ended_ms}
        if not last:
            return
        is_older = sa.or_(usage_position.c.is_older, in_another_stream(led[0][0].stream))
        if not await self._connection.scalar(sa.select(is_older)):
            for values in last.values():
                values |= dict.fromkeys(_OLDER, 0)
        insert = inserting(self._connection, usage_settled)
        # Older counts are of the first message of a tenant that was seen, and stay.
        newest = {name: insert.excluded[name] for name in (*_COUNTED, "time_ms")}
        keys = ("leadership", "tenant")
        once = insert.on_conflict_do_update(index_elements=keys, set_=newest)
        await self._connection.execute(once, [last[key] for key in sorted(last)])


def in_another_stream(stream: str) -> sa.ColumnElement[bool]:
    """Return whether what is stored is of another stream."""
    return usage_position.c.stream.not_in(("", stream))


def _is_led(message: UsageRecords) -> bool:
    """Return whether a message names a leadership that can be stored: whatever it names, its
    records are bills."""
    return 0 < message.epoch <= MAX_NANOS and len(message.model) <= MAX_CHARACTERS


def _older(total: TenantTotals, message: UsageRecords) -> Values:
    """Return what a leadership had counted for a tenant before this message."""
    own = [record for record in message.records if record.tenant == total.tenant]
    counted = (
        total.requests - len(own),
        total.input_tokens - sum(record.input_tokens for record in own),
        total.output_tokens - sum(record.output_tokens for record in own),
    )
    return {
        name: min(max(value, 0), MAX_NANOS) for name, value in zip(_OLDER, counted, strict=True)
    }


async def settled_differences(
    connection: AsyncConnection, since_ms: int, until_ms: int
) -> list[SettledDifference]:
    """Return which leaderships have counted for a tenant what its rows are not, at most a thousand:
    of those that began before `until_ms`, published something for it since, and have all of their
    rows still."""
    settled, led = usage_settled, usage_leaderships
    kept_ms = await connection.scalar(sa.select(usage_position.c.rows_since_ms)) or 0
    compared = sa.and_(
        led.c.first_ms >= kept_ms, led.c.first_ms < until_ms, settled.c.time_ms >= since_ms
    )
    joined = settled.join(led, led.c.leadership == settled.c.leadership)
    first = sa.select(sa.func.min(led.c.first_ms)).select_from(joined).where(compared)
    if (first_ms := await connection.scalar(first)) is None:
        return []
    # Why an hour: clocks of leaders may have been set.
    both = sa.union_all(
        _sums_of(usage).where(usage.c.end_ms >= first_ms - HOUR_MS),
        _sums_of(usage_repeated),
        sa.select(
            settled.c.leadership,
            settled.c.tenant,
            *(
                (settled.c[older] - settled.c[name]).label(name)
                for name, older in zip(_COUNTED, _OLDER, strict=True)
            ),
        ),
    ).subquery()
    is_same = sa.and_(settled.c.leadership == both.c.leadership, settled.c.tenant == both.c.tenant)
    keys = (both.c.tenant, led.c.model, led.c.epoch, both.c.leadership)
    sums = [sa.func.sum(both.c[name]) for name in _COUNTED]
    columns = [each.label(name) for each, name in zip(sums, _COUNTED, strict=True)]
    query = sa.select(*keys, *columns).select_from(joined.join(both, is_same)).where(compared)
    query = query.group_by(*keys).having(sa.or_(*(each != 0 for each in sums)))
    found = await connection.execute(query.order_by(both.c.leadership, both.c.tenant).limit(_MOST))
    return [
        SettledDifference(
            row["tenant"],
            row["model"],
            row["epoch"],
            {name: int(row[name]) for name in _COUNTED if row[name]},
        )
        for row in found.mappings()
    ]


def _sums_of(table: sa.Table) -> sa.Select[Any]:
    """Return a query of what the rows of a table come to, of each leadership and tenant."""
    keys = (table.c.leadership, table.c.tenant)
    query = sa.select(
        *keys,
        sa.func.count().label("requests"),
        sa.func.sum(table.c.input_tokens).label("input_tokens"),
        sa.func.sum(table.c.output_tokens).label("output_tokens"),
    )
    return query.where(table.c.leadership != UNKNOWN).group_by(*keys)
