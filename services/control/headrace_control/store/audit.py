"""The audit of administration in the database: events, each with the hash of the last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import sqlalchemy as sa

from headrace_control.base.audit_hash import FIRST_HASH, hash_of
from headrace_control.base.records import Actor, AuditEvent, ChainReport, Page
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import event_of
from headrace_control.store.database.tables import audit_events, audit_head
from headrace_control.store.database.transactions import Database

_EVENTS = Listing("audit_events", (audit_events.c.sequence,), descending=True)
_EXPORTED_AT_ONCE = 500


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        action: str,
        resource: str,
        *,
        tenant: str = "",
        details: Mapping[str, Any] = {},
        by: Actor,
    ) -> AuditEvent:
        """Append an event of something that changed nothing here: a worker drained, a request
        cancelled. Changes of the store write their own."""
        async with self._database.changing(by) as change:
            return await change.record(action, resource, tenant=tenant, details=details)

    async def list(
        self, *, tenant: str = "", action: str = "", options: PageOptions = FIRST_PAGE
    ) -> Page[AuditEvent]:
        """Return a page of events, the newest first.

        Args:
            tenant: only those that concern it; empty: all.
            action: only these; empty: all.
        """
        query = sa.select(audit_events)
        if tenant:
            query = query.where(audit_events.c.tenant == tenant)
        if action:
            query = query.where(audit_events.c.action == action)
        async with self._database.reading() as connection:
            return await _EVENTS.page(connection, query, options, event_of)

    async def export(self, after_sequence: int = 0) -> AsyncIterator[AuditEvent]:
        """Yield every event behind `after_sequence`, the oldest first; those too that are appended
        meanwhile. No transaction is held open between events."""
        while True:
            is_next = audit_events.c.sequence > min(after_sequence, 2**63 - 1)
            query = sa.select(audit_events).where(is_next).order_by(audit_events.c.sequence)
            async with self._database.reading() as connection:
                rows = (await connection.execute(query.limit(_EXPORTED_AT_ONCE))).all()
            for row in rows:
                yield event_of(row)
                after_sequence = row.sequence
            if len(rows) < _EXPORTED_AT_ONCE:
                return

    async def verify_chain(self) -> ChainReport:
        """Check every event's sequence and hash, and that the chain ends where its head says.

        Whoever can write to the database can write a whole new chain; only a head that was kept
        elsewhere shows that.
        """
        async with self._database.reading() as connection:
            head = (await connection.execute(sa.select(audit_head))).one()
        count, last_hash = 0, FIRST_HASH
        async for event in self.export():
            if event.sequence > head.sequence:
                break
            count += 1
            if event.sequence != count:
                return ChainReport(count - 1, last_hash, f"event {count} is missing")
            if event.previous_hash != last_hash or event.hash != hash_of(event):
                return ChainReport(count - 1, last_hash, f"event {count} was changed")
            last_hash = event.hash
        if (count, last_hash) != (head.sequence, head.hash):
            fault = f"the chain ends at event {count}, its head says {head.sequence}"
            return ChainReport(count, last_hash, fault)
        return ChainReport(count, last_hash)
