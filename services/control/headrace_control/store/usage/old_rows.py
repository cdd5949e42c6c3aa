"""Deletes old rows; their sums by the hour stay, and so do statements."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.usage import HOUR_MS
from headrace_control.store.database.billing_tables import (
    accounts,
    statements,
    usage,
    usage_leaderships,
    usage_position,
    usage_repeated,
    usage_settled,
)
from headrace_control.store.database.transactions import Database

_AT_ONCE = 1000


class OldRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, before_ms: int) -> int:
        """Delete some rows of requests that ended before this time; return how many, 0 if none are
        left.

        A billed row stays until it is in a closed statement of its tenant; where several tenants
        have had its name, of each of them.
        """
        before_ms = before_ms // HOUR_MS * HOUR_MS
        has_it = sa.and_(
            statements.c.account_id == accounts.c.account_id,
            statements.c.end_ms > usage.c.end_ms,
            statements.c.last_recording >= usage.c.recording,
        )
        is_open = sa.and_(
            accounts.c.tenant == usage.c.tenant,
            ~sa.exists().where(has_it).correlate(accounts, usage),
        )
        old = sa.select(usage.c.source, usage.c.sequence).where(
            usage.c.end_ms < before_ms,
            sa.or_(~usage.c.billed, ~sa.exists().where(is_open).correlate(usage)),
        )
        async with self._database.writing() as connection:
            keys = (await connection.execute(old.limit(_AT_ONCE))).all()
            if not keys:
                return 0
            for source in {row.source for row in keys}:
                sequences = [row.sequence for row in keys if row.source == source]
                is_key = sa.and_(usage.c.source == source, usage.c.sequence.in_(sequences))
                await connection.execute(sa.delete(usage).where(is_key))
            is_later = usage_position.c.rows_since_ms < before_ms
            since = sa.update(usage_position).where(is_later).values(rows_since_ms=before_ms)
            await connection.execute(since)
            await _delete_leaderships(connection, before_ms)
        return len(keys)


async def _delete_leaderships(connection: AsyncConnection, before_ms: int) -> None:
    """Delete what leaderships have counted that published nothing since: it is compared no more."""
    table = usage_settled
    recent = sa.select(table.c.leadership).where(table.c.time_ms >= before_ms)
    for each in (usage_repeated, usage_settled, usage_leaderships):
        is_old = each.c.leadership.not_in(recent)
        await connection.execute(sa.delete(each).where(is_old))
