"""Rows of the database as lines of JSON, the same for SQLite and PostgreSQL.

So a backup of one can be restored into the other: it is also the way from SQLite to PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.store.database.metadata import METADATA

NOT_SAVED = frozenset({"outbox", "facts"})
"""The outbox is made anew; the facts are of the database, not of its contents."""
SAVED = tuple(table for table in METADATA.sorted_tables if table.name not in NOT_SAVED)
"""Each after those that it refers to."""
_AT_ONCE = 500


async def lines_of(connection: AsyncConnection, table: sa.Table) -> AsyncIterator[bytes]:
    """Yield each row of a table as a line, in the order of its key."""
    query = sa.select(table).order_by(*table.primary_key.columns)
    async with connection.stream(query) as rows:
        async for row in rows.mappings():
            yield (json.dumps(dict(row)) + "\n").encode()


async def insert_lines(connection: AsyncConnection, table: sa.Table, lines: Iterable[str]) -> None:
    """Insert rows into a table, which may lack none of their columns."""
    for some in _in_parts(lines):
        await connection.execute(sa.insert(table), [json.loads(line) for line in some])


def _in_parts(lines: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(lines)
    while some := list(islice(remaining, _AT_ONCE)):
        yield some
