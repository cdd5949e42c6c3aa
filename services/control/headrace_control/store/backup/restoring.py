"""Restores backups. A backup is the past: what was ended since then must not live again unseen.

Sessions and invitations are not restored at all: people sign in again. Keys are restored only if
whoever restores says so, for of those revoked or rotated since the backup nothing is known, unless
the database that is replaced still knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.snapshots import Snapshots
from headrace.clock import Clock, SystemClock
from headrace.database.failures import unavailable
from headrace.errors import FailedPrecondition
from headrace_control.base.records import REPUBLISH, SYSTEM, OutboxRow
from headrace_control.store.backup.archive import ArchiveReader, Manifest
from headrace_control.store.backup.rows import NOT_SAVED, insert_lines
from headrace_control.store.database.metadata import METADATA
from headrace_control.store.database.opening import SCHEMA, open_engine
from headrace_control.store.database.published import in_parts
from headrace_control.store.database.tables import (
    audit_events,
    keys,
    people,
)
from headrace_control.store.database.transactions import Change, Database, begin_change
from headrace_control.store.endings import revoke_keys

_NEVER = frozenset({"sessions", "invitations", *NOT_SAVED})


@dataclass(frozen=True, slots=True)
class RestoreReport:
    valid_keys: int
    """Keys that may be used now."""
    ended_keys: int
    """Keys of the backup that the replaced database did not have as valid, and are revoked."""
    ended_people: int
    """People whom the replaced database had as deactivated, and are so again."""


@dataclass(frozen=True, slots=True)
class _Replaced:
    """What the database that is replaced knows and the backup may not."""

    is_known: bool = False
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of the keys that are not revoked: digests, and what is shown of the secret."""
    deactivated: frozenset[str] = field(default_factory=frozenset)


async def check_empty(database_url: str, broker: Snapshots | None) -> None:
    """Refuse to restore over something.

    Raises:
        FailedPrecondition: the database has rows, or the broker has messages.
    """
    engine = open_engine(database_url)
    try:
        async with unavailable(), engine.connect() as connection:
            names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            events = 0
            if audit_events.name in names:
                query = sa.select(sa.func.count()).select_from(audit_events)
                events = await connection.scalar(query) or 0
            elif names:
                raise FailedPrecondition(
                    f"the database has tables of something else, {names[0]} among them"
                )
    finally:
        await engine.dispose()
    if events:
        raise FailedPrecondition(
            f"the database is not empty: {events} changes were made to it; --force replaces it"
        )
    held = {} if broker is None else await broker.stored()
    if found := {stream: count for stream, count in held.items() if count}:
        facts = ", ".join(f"{count} messages in {stream}" for stream, count in found.items())
        raise FailedPrecondition(f"the broker is not empty: {facts}; --force replaces them")


async def restore_broker(archive: ArchiveReader, broker: Snapshots) -> None:
    """Make every stream of the backup anew.

    Raises:
        BusError: the broker cannot; streams after this one are not restored.
    """
    for stream in archive.manifest.streams:
        await broker.load_stream(stream, archive.description(stream), archive.snapshot(stream))


async def restore_database(
    archive: ArchiveReader, database_url: str, *, keep_keys: bool, clock: Clock | None = None
) -> RestoreReport:
    """Replace a database, as one transaction, and have all tables published anew.

    Args:
        keep_keys: whether the keys of the backup are restored. Without them the next start makes
            the first keys, as for a new database.

    Raises:
        SchemaMismatch: the backup is of a later version.
    """
    engine = open_engine(database_url)
    database = Database(engine, clock or SystemClock())
    try:
        async with unavailable(), SCHEMA.one_upgrade(engine) as connection:
            report = await _restore(archive, connection, database, keep_keys=keep_keys)
            await connection.commit()
    finally:
        await engine.dispose()
    return report


async def _restore(
    archive: ArchiveReader, connection: AsyncConnection, database: Database, *, keep_keys: bool
) -> RestoreReport:
    SCHEMA.check_known(archive.manifest.schema)
    replaced = await _replaced(connection, archive.manifest)
    await _drop(connection)
    await SCHEMA.migrate(connection, archive.manifest.schema)
    made = sa.MetaData()
    await connection.run_sync(made.reflect)
    left_out = _NEVER if keep_keys else _NEVER | {"keys"}
    for name in archive.manifest.tables:
        if name not in left_out:
            table = made.tables[name]
            # Migrations make rows too: the head of the audit, and the plan `free`.
            await connection.execute(sa.delete(table))
            await insert_lines(connection, table, archive.rows(name))
    await SCHEMA.migrate(connection, SCHEMA.newest_revision())
    change = await begin_change(connection, SYSTEM, database.now())
    report = await _end_what_had_ended(change, replaced)
    details = {
        "backup_time": archive.manifest.created,
        "valid_keys": report.valid_keys,
        "ended_keys": report.ended_keys,
    }
    await change.record("database.restore", "database", details=details)
    await change.write_outbox([OutboxRow(0, REPUBLISH, "", None)])
    return report


async def _replaced(connection: AsyncConnection, manifest: Manifest) -> _Replaced:
    """Return what a database knows that the backup was made of, at an earlier time; nothing of
    another database. The audit says which it is: its chain goes through the backup's last event."""
    if await SCHEMA.revision_of(connection) != SCHEMA.newest_revision():
        return _Replaced()
    query = sa.select(audit_events.c.hash).where(audit_events.c.sequence == manifest.audit_events)
    if not manifest.audit_events or await connection.scalar(query) != manifest.audit_head:
        return _Replaced()
    gone = sa.select(people.c.person_id).where(people.c.deactivated)
    return _Replaced(
        True,
        await _secrets(connection),
        frozenset((await connection.execute(gone)).scalars()),
    )


async def _secrets(connection: AsyncConnection) -> dict[str, tuple[str, str]]:
    query = sa.select(keys.c.key_id, keys.c.digests, keys.c.redacted)
    valid = query.where(keys.c.revoke_ms.is_(None)).order_by(keys.c.key_id)
    found = await connection.execute(valid)
    return {row.key_id: (row.digests, row.redacted) for row in found}


async def _drop(connection: AsyncConnection) -> None:
    """Drop our tables, whatever version made them."""
    found = sa.MetaData()
    ours = {*METADATA.tables, "alembic_version"}
    await connection.run_sync(lambda sync: found.reflect(sync, only=lambda name, _: name in ours))
    await connection.run_sync(found.drop_all)


async def _end_what_had_ended(change: Change, replaced: _Replaced) -> RestoreReport:
    found = await _secrets(change.connection)
    ended = [key for key in found if replaced.is_known and key not in replaced.secrets]
    for some in in_parts(ended):
        await revoke_keys(change, keys.c.key_id.in_(some))
    for key_id in found.keys() & replaced.secrets.keys():
        # Rotated since: the secret that was replaced may be in wrong hands.
        if (secret := replaced.secrets[key_id]) != found[key_id]:
            values = dict(zip(("digests", "redacted"), secret, strict=True))
            await change.execute(sa.update(keys).where(keys.c.key_id == key_id).values(values))
    gone = 0
    for some in in_parts(sorted(replaced.deactivated)):
        which = sa.and_(people.c.person_id.in_(some), people.c.deactivated.is_(False))
        done = await change.execute(sa.update(people).where(which).values(deactivated=True))
        gone += done.rowcount
    is_current = sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > change.now_ms)
    current = sa.select(sa.func.count()).where(keys.c.revoke_ms.is_(None), is_current)
    return RestoreReport(await change.connection.scalar(current) or 0, len(ended), gone)
