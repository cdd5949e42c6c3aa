"""Rows of usage as lines of statements: each billed row is in one statement of its account.

A closed statement has the rows that ended before its month did and were recorded by then, but for
those of the statement before. So a row that is recorded late is in the next one, as a correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.statement import Account, Line, usage_line
from headrace_control.base.accounts.usage import kind_name
from headrace_control.store.billing.accounts import lifetime
from headrace_control.store.billing.prices import first_times
from headrace_control.store.database.billing_tables import usage, usage_position

_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens")
_PRICES = ("input_nanos", "cached_nanos", "output_nanos")
_GROUPS = ("corrects", "model", "key_id", "kind", "batch", *_PRICES)


@dataclass(frozen=True, slots=True)
class Closed:
    """Of a closed statement: what it covers."""

    sequence: int = 0
    month: str = ""
    end_ms: int = 0
    recording: int = 0
    """Number of the last transaction that recorded usage which it has."""
    last_correction: int = 0


NONE_CLOSED = Closed()
NO_END_MS = 2**62


async def last_recording(connection: AsyncConnection, *, lock: bool = False) -> int:
    """Return the number of the last transaction that recorded usage.

    Args:
        lock: no other one comes before this transaction ends.
    """
    query = sa.select(usage_position.c.recording)
    return await connection.scalar(query.with_for_update() if lock else query) or 0


async def has_usage(connection: AsyncConnection, account: Account) -> bool:
    query = sa.select(usage.c.sequence).where(*await _is_of(connection, account)).limit(1)
    return await connection.scalar(query) is not None


async def first_open_ms(connection: AsyncConnection, account: Account, last: Closed) -> int | None:
    """Return when the first request ended after the last closed month; None if there is none."""
    query = sa.select(sa.func.min(usage.c.end_ms)).where(usage.c.end_ms >= last.end_ms)
    found: int | None = await connection.scalar(query.where(*await _is_of(connection, account)))
    return found


async def has_late_rows(connection: AsyncConnection, account: Account, last: Closed) -> bool:
    query = sa.select(usage.c.sequence).where(_is_late(last)).limit(1)
    return await connection.scalar(query.where(*await _is_of(connection, account))) is not None


async def usage_lines(
    connection: AsyncConnection,
    account: Account,
    closed: Sequence[Closed],
    which: sa.ColumnElement[bool],
    *,
    by_key: bool,
) -> list[Line]:
    """Return the lines of some rows.

    Args:
        closed: of the account, the oldest first.
        which: `of_month`, or that with `late_rows`.
        by_key: whether keys have lines of their own.
    """
    query = sa.select(
        _month_of(closed).label("corrects"),
        usage.c.model,
        (usage.c.key_id if by_key else sa.literal("")).label("key_id"),
        usage.c.kind,
        (usage.c.batch_id != "").label("batch"),
        *(usage.c[name] for name in (*_PRICES, *_TOKENS, "end_ms")),
    )
    rows = query.where(which, *await _is_of(connection, account)).subquery()
    groups = [rows.c[name] for name in _GROUPS]
    sums = [sa.func.sum(rows.c[name]).label(name) for name in _TOKENS]
    facts = sa.func.count().label("requests"), sa.func.min(rows.c.end_ms).label("first_ms")
    grouped = sa.select(*groups, *facts, *sums).group_by(*groups)
    priced_ms = await first_times(connection)
    return [_line(account, row, priced_ms) for row in await connection.execute(grouped)]


def of_month(begin_ms: int, end_ms: int, recording: int) -> sa.ColumnElement[bool]:
    """Return what holds for rows that ended in a time, and were recorded by then."""
    return sa.and_(
        usage.c.end_ms >= begin_ms,
        usage.c.end_ms < end_ms,
        usage.c.recording <= recording,
    )


def late_rows(last: Closed, recording: int) -> sa.ColumnElement[bool]:
    """Return what holds for rows of closed months that no statement has yet."""
    return sa.and_(_is_late(last), usage.c.recording <= recording)


async def covered(
    connection: AsyncConnection, account: Account, closed: Closed, before: Closed
) -> tuple[int, int]:
    """Return how many rows a closed statement covers, and what they cost in nano-units.

    Args:
        before: the statement before it.
    """
    is_before = sa.and_(usage.c.end_ms < before.end_ms, usage.c.recording <= before.recording)
    which = sa.and_(
        usage.c.end_ms < closed.end_ms, usage.c.recording <= closed.recording, ~is_before
    )
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(usage.c.cost_nanos), 0))
    of_account = await _is_of(connection, account)
    requests, nanos = (await connection.execute(query.where(which, *of_account))).one()
    return requests, int(nanos)


def _is_late(last: Closed) -> sa.ColumnElement[bool]:
    return sa.and_(usage.c.recording > last.recording, usage.c.end_ms < last.end_ms)


async def _is_of(connection: AsyncConnection, account: Account) -> list[sa.ColumnElement[bool]]:
    begins, ends = await lifetime(connection, account)
    arrives = usage.c.arrival_ms
    return [usage.c.tenant == account.tenant, usage.c.billed, arrives >= begins, arrives < ends]


def _month_of(closed: Sequence[Closed]) -> sa.ColumnElement[str]:
    if not closed:
        return sa.literal("")
    return sa.case(*((usage.c.end_ms < each.end_ms, each.month) for each in closed), else_="")


def _line(account: Account, row: Any, priced_ms: Mapping[tuple[str, str], int]) -> Line:
    is_free = not any(getattr(row, name) for name in _PRICES)
    # PostgreSQL's sums of integers are decimals.
    return usage_line(
        account.currency,
        model=row.model,
        key_id=row.key_id,
        kind=kind_name(row.kind),
        batch=bool(row.batch),
        corrects=row.corrects,
        requests=int(row.requests),
        input_tokens=int(row.input_tokens),
        cached_input_tokens=int(row.cached_input_tokens),
        output_tokens=int(row.output_tokens),
        input_nanos=row.input_nanos,
        cached_input_nanos=row.cached_nanos,
        output_nanos=row.output_nanos,
        unpriced=is_free and row.first_ms < priced_ms.get((row.model, account.currency), NO_END_MS),
    )
