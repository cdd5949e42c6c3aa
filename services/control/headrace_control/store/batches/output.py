"""Finished rows of a batch, which count against the room for files until its files are there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import InsufficientQuota
from headrace_control.base.batches import FinishedRow
from headrace_control.base.files import FileLimits
from headrace_control.store.database.file_tables import batch_rows
from headrace_control.store.database.transactions import inserting
from headrace_control.store.files.rows import room_for_files


async def insert_rows(
    connection: AsyncConnection, batch_id: str, rows: Sequence[FinishedRow]
) -> list[FinishedRow]:
    """Insert those rows that were not added before, and return them."""
    by_line = {row.line: row for row in rows}
    values = [
        {"batch_id": batch_id, "line": line, "succeeded": row.succeeded, "text": row.text}
        for line, row in by_line.items()
    ]
    insert = inserting(connection, batch_rows).on_conflict_do_nothing()
    added = await connection.execute(insert.returning(batch_rows.c.line), values)
    return [by_line[line] for line in added.scalars()]


async def fitting(
    connection: AsyncConnection, tenant: str, rows: Sequence[FinishedRow], limits: FileLimits
) -> tuple[Sequence[FinishedRow], int]:
    """Return the first of the rows, as many as there is room for, and the bytes left after them;
    negative if not all fit."""
    try:
        room = await room_for_files(connection, tenant, limits)
    except InsufficientQuota:
        room = 0
    for number, row in enumerate(rows):
        room -= row.stored_bytes
        if room < 0:
            return rows[:number], room
    return rows, room
