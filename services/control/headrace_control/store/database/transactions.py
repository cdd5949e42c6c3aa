"""Transactions: each change writes its rows, its audit event and its outbox rows, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headrace.clock import Clock
from headrace.database.engine import WRITES
from headrace.database.failures import unavailable
from headrace_control.base.audit_hash import hash_of
from headrace_control.base.published_rows import EPOCH, milliseconds, time_of
from headrace_control.base.records import Actor, AuditEvent, OutboxRow
from headrace_control.store.database import published
from headrace_control.store.database.tables import audit_events, audit_head, outbox

_WEBHOOKS = "webhooks"


class Database:
    """Opens transactions. Those that change follow one another, so that the audit has one end."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self.engine, self._clock = engine, clock
        self._writing = asyncio.Lock()
        self.outbox_written = asyncio.Event()
        """Set after each commit that has written to the outbox; whoever waits clears it."""
        self.webhooks_due = asyncio.Event()
        """Set after each commit of `wake_webhooks`; whoever waits clears it."""

    def now(self) -> datetime:
        """Return the time to the millisecond, which is what the database keeps."""
        time = time_of(int(self._clock.unix_s() * 1000))
        return time or EPOCH

    @asynccontextmanager
    async def reading(self, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads.

        Args:
            snapshot: all its statements see the database as it was at the first.
        """
        async with unavailable(), self.engine.connect() as connection:
            if snapshot and self.engine.dialect.name == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that writes what is no change of what control keeps."""
        async with unavailable(), self._writing, self.engine.connect() as plain:
            connection = await plain.execution_options(**{WRITES: True})
            async with connection.begin():
                yield connection
            if _info(connection).pop(_WEBHOOKS, False):
                self.webhooks_due.set()

    @asynccontextmanager
    async def changing(self, by: Actor) -> AsyncIterator[Change]:
        """One transaction that changes; committed unless the body raises."""
        async with self.writing() as connection:
            change = await begin_change(connection, by, self.now())
            yield change
        if change.has_published:
            self.outbox_written.set()


@dataclass(frozen=True, slots=True)
class _Head:
    sequence: int
    hash: str


async def begin_change(connection: AsyncConnection, by: Actor, now: datetime) -> Change:
    """Begin a change in a transaction that may write."""
    # PostgreSQL's writers of other processes wait here, SQLite's have done so.
    head = (await connection.execute(sa.select(audit_head).with_for_update())).one()
    return Change(connection, by, now, _Head(head.sequence, head.hash))


class Change:
    """A transaction under way."""

    def __init__(self, connection: AsyncConnection, by: Actor, now: datetime, head: _Head) -> None:
        self.connection, self.by, self.now = connection, by, now
        self._head = head
        self.has_published = False

    @property
    def now_ms(self) -> int:
        return milliseconds(self.now)

    async def execute(self, statement: sa.Executable) -> sa.CursorResult[Any]:
        result = await self.connection.execute(statement)
        assert isinstance(result, sa.CursorResult)
        return result

    async def record(
        self, action: str, resource: str, *, tenant: str = "", details: Mapping[str, Any] = {}
    ) -> AuditEvent:
        """Append an audit event to the chain."""
        event = AuditEvent(
            sequence=self._head.sequence + 1,
            time=self.now,
            action=stored(action),
            resource=stored(resource),
            tenant=stored(tenant),
            actor=stored(self.by.name),
            client=stored(self.by.client),
            details=json.dumps(details, sort_keys=True),
            previous_hash=self._head.hash,
            hash="",
        )
        event = replace(event, hash=hash_of(event))
        self._head = _Head(event.sequence, event.hash)
        await self.execute(sa.insert(audit_events).values(event_values(event)))
        await self.execute(sa.update(audit_head).values(sequence=event.sequence, hash=event.hash))
        return event

    async def publish(self, table: str, keys: Iterable[str]) -> None:
        """Write to the outbox what these rows of a table on the bus are after this change."""
        for some in published.in_parts(tuple(keys)):
            rows = await published.rows_of(self.connection, table, some)
            await self.write_outbox(OutboxRow(0, table, key, rows.get(key)) for key in some)

    async def write_outbox(self, rows: Iterable[OutboxRow]) -> None:
        values = [{"table_name": r.table, "row_key": r.key, "row": r.row} for r in rows]
        if values:
            self.has_published = True
            await self.connection.execute(sa.insert(outbox), values)


MAX_NUMBER = 2**63 - 1


def wake_webhooks(connection: AsyncConnection) -> None:
    """Have what sends webhooks look for deliveries once this transaction is committed."""
    _info(connection)[_WEBHOOKS] = True


def _info(connection: AsyncConnection) -> dict[Any, Any]:
    return connection.sync_connection.info if connection.sync_connection else {}


def inserting(connection: AsyncConnection, table: sa.Table) -> Any:
    """Return an insert that has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return _inserting(connection.dialect.name, table)


def _inserting(dialect: str, table: sa.Table) -> Any:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def adding(
    connection: AsyncConnection, table: sa.Table, key: tuple[str, ...], sums: tuple[str, ...]
) -> Any:
    """Return an insert that adds to these columns where there is a row with the key."""
    return _adding(connection.dialect.name, table, key, sums)


@lru_cache
def _adding(dialect: str, table: sa.Table, key: tuple[str, ...], sums: tuple[str, ...]) -> Any:
    insert = _inserting(dialect, table)
    added = {name: sum_of(table.c[name], insert.excluded[name]) for name in sums}
    return insert.on_conflict_do_update(index_elements=key, set_=added)


def sum_of(stored: sa.ColumnElement[int], added: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return a sum that stops at the largest number there is: PostgreSQL would refuse a larger one,
    and SQLite would make it a fraction. Neither number may be negative."""
    return sa.case((stored > MAX_NUMBER - added, MAX_NUMBER), else_=stored + added)


def stored(text: str) -> str:
    """Return text as every database returns it; what is hashed must be what is read."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def event_values(event: AuditEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "time_ms": milliseconds(event.time),
        "action": event.action,
        "resource": event.resource,
        "tenant": event.tenant,
        "actor": event.actor,
        "client": event.client,
        "details": event.details,
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }
