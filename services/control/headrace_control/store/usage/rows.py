"""Rows of usage as they are stored, and records that are no rows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headrace_control.base.accounts.usage import Values
from headrace_control.base.records import Page
from headrace_control.store.database.billing_tables import usage
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.transactions import Database

_ROWS = Listing("usage", (usage.c.end_ms, usage.c.source, usage.c.sequence))


class UsageRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        tenant: str = "",
        *,
        since_ms: int = 0,
        until_ms: int | None = None,
        options: PageOptions = FIRST_PAGE,
    ) -> Page[Values]:
        """Return a page of rows by their columns, in the order of their ends.

        Args:
            tenant: whose; empty: all.
            since_ms, until_ms: when they ended; `until_ms` is exclusive.
        """
        query = sa.select(usage).where(usage.c.end_ms >= since_ms)
        if tenant:
            query = query.where(usage.c.tenant == tenant)
        if until_ms is not None:
            query = query.where(usage.c.end_ms < until_ms)
        async with self._database.reading() as connection:
            return await _ROWS.page(connection, query, options, _values)


def _values(row: sa.Row[Any]) -> Values:
    return dict(row._mapping)
