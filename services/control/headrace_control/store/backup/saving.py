"""Makes backups, while everything runs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.snapshots import Snapshots
from headrace.clock import Clock, SystemClock
from headrace.database.failures import unavailable
from headrace_control.base.published_rows import milliseconds
from headrace_control.store.backup.archive import ArchiveWriter, Manifest
from headrace_control.store.backup.rows import SAVED, lines_of
from headrace_control.store.database.opening import SCHEMA, open_engine
from headrace_control.store.database.tables import audit_head, keys
from headrace_control.store.database.transactions import Database


async def save_backup(
    database_url: str, broker: Snapshots | None, path: Path, *, clock: Clock | None = None
) -> Manifest:
    """Write a backup to a new file, and return what is in it.

    Each stream of the broker is as it was at one moment, one after another, and then the database
    is, as one snapshot. So a request that ends meanwhile is saved as one that waits, or with its
    result, and a tenant or key that a saved request is of is saved too, unless it was deleted.

    Args:
        broker: None: only the database is saved.

    Raises:
        FileExistsError: there is a file of this name.
        SchemaMismatch: the database has another schema than this version.
        BusError: the broker cannot write its snapshots.
    """
    engine = open_engine(database_url)
    try:
        database = Database(engine, clock or SystemClock())
        async with unavailable():
            await SCHEMA.check(engine)
        with ArchiveWriter(path) as archive:
            if broker is not None:
                await _save_streams(broker, archive)
            async with database.reading(snapshot=True) as connection:
                manifest = await _described(connection, database)
                await _save_tables(connection, archive)
            return archive.finish(manifest)
    finally:
        await engine.dispose()


async def _save_streams(broker: Snapshots, archive: ArchiveWriter) -> None:
    for stream, messages in (await broker.stored()).items():
        with archive.part(f"broker/{stream}.snapshot") as part:
            description = await broker.save_stream(stream, part.write)
            part.items = messages
        with archive.part(f"broker/{stream}.json") as part:
            part.write(description)


async def _save_tables(connection: AsyncConnection, archive: ArchiveWriter) -> None:
    for table in SAVED:
        with archive.part(f"database/{table.name}.jsonl") as part:
            async for line in lines_of(connection, table):
                part.write(line)
                part.items += 1


async def _described(connection: AsyncConnection, database: Database) -> Manifest:
    head = (await connection.execute(sa.select(audit_head))).one()
    now = database.now()
    is_valid = sa.and_(
        keys.c.revoke_ms.is_(None),
        sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > milliseconds(now)),
    )
    valid = await connection.scalar(sa.select(sa.func.count()).select_from(keys).where(is_valid))
    return Manifest(
        created=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        headrace=version("headrace"),
        schema=SCHEMA.newest_revision(),
        audit_events=head.sequence,
        audit_head=head.hash,
        valid_keys=valid or 0,
    )
