"""The outbox: changes of the tables on the bus that are committed and not yet published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import sqlalchemy as sa

from headrace.bus.subjects import TABLES
from headrace_control.base.records import REPUBLISH, Actor, OutboxRow
from headrace_control.store.database.published import in_parts, rows_of
from headrace_control.store.database.tables import outbox
from headrace_control.store.database.transactions import Database


class Outbox:
    """Whoever publishes takes `pending` rows in their order, publishes them, and calls `done`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pending(self, limit: int = 500) -> tuple[OutboxRow, ...]:
        """Return the oldest rows, in the order in which they are to be published.

        A row of table REPUBLISH means: make the tables what `all_rows` returns, and delete whatever
        else they hold.
        """
        query = sa.select(outbox).order_by(outbox.c.sequence).limit(limit)
        async with self._database.reading() as connection:
            return tuple(
                OutboxRow(row.sequence, row.table_name, row.row_key, row.row)
                for row in await connection.execute(query)
            )

    async def done(self, sequences: Sequence[int]) -> None:
        """Delete rows that have been published. Idempotent."""
        async with self._database.writing() as connection:
            for some in in_parts(sequences):
                await connection.execute(sa.delete(outbox).where(outbox.c.sequence.in_(some)))

    async def all_rows(self) -> dict[str, dict[str, bytes]]:
        """Return what each of `subjects.TABLES` must hold once the outbox is empty, by table and
        key, without the stamp; from one snapshot of the database."""
        async with self._database.reading(snapshot=True) as connection:
            return {table: await rows_of(connection, table) for table in TABLES}

    async def request_republish(self, *, by: Actor) -> None:
        """Have the active control compare the tables with the database, and repair them."""
        async with self._database.changing(by) as change:
            await change.record("tables.republish", "tables")
            await change.write_outbox([OutboxRow(0, REPUBLISH, "", None)])

    async def wait_for_rows(self, timeout_s: float) -> None:
        """Return once this process has written to the outbox, or after `timeout_s`, for rows of
        other processes. It may return early."""
        written = self._database.outbox_written
        try:
            async with asyncio.timeout(timeout_s):
                await written.wait()
        except TimeoutError:
            return
        written.clear()
