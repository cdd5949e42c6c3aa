"""Sessions in the database, by the digests of their cookies."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import SESSIONS_TABLE
from headrace.errors import FailedPrecondition, PermissionDenied, ResourceNotFound
from headrace_control.base.names import new_id
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import BY_PROVIDER, SYSTEM, Actor, Page, Session
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.published import SESSIONS
from headrace_control.store.database.records import session_of, some_ms
from headrace_control.store.database.tables import keys, people, sessions
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.endings import delete_sessions, member_role
from headrace_control.store.people import get_person

MAX_SESSIONS = 100
"""Of one person, or of one tenant's key. Every gateway holds all sessions in memory."""
_SESSIONS = Listing("sessions", (sessions.c.create_ms, sessions.c.session_id), descending=True)


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, session: Session, *, by: Actor) -> Session:
        """Open a session, and return it with its id, whatever `session_id` was, and with what
        follows from its membership or key. Beyond MAX_SESSIONS the oldest end.

        Args:
            session: with its digest, tenant, expiry, and a person, a key or both.

        Raises:
            ResourceNotFound: there is no such person.
            FailedPrecondition: its person is no member of the tenant or is deactivated; its key is
                not one of the tenant and person, or is revoked or expired.
        """
        async with self._database.changing(by) as change:
            await _check_new(change, session)
            session_id = new_id()
            values = {
                "session_id": session_id,
                "digest": session.digest,
                "tenant": session.tenant,
                "person": session.person or None,
                "key_id": session.key_id or None,
                "opened_by": session.opened_by,
                "client": session.client,
                "create_ms": change.now_ms,
                "expire_ms": some_ms(session.expire_time),
            }
            await change.execute(sa.insert(sessions).values(values))
            if session.person:
                is_person = people.c.person_id == session.person
                signed_in = sa.update(people).where(is_person)
                await change.execute(signed_in.values(last_sign_in_ms=change.now_ms))
            details = {"opened_by": session.opened_by}
            if session.person:
                details["person"] = session.person
            if session.key_id:
                details["key"] = session.key_id
            name = f"sessions/{session_id}"
            await change.record("sessions.create", name, tenant=session.tenant, details=details)
            await change.publish(SESSIONS_TABLE, [session.digest])
            await _end_beyond_bound(change, session)
            return await _session(change.connection, session_id)

    async def get(self, session_id: str) -> Session:
        """Return the session, expired or not.

        Raises:
            ResourceNotFound: there is none of this id.
        """
        async with self._database.reading() as connection:
            return await _session(connection, session_id)

    async def try_by_digest(self, digest: str) -> Session | None:
        """Return the session of a cookie, if it has not expired."""
        query = SESSIONS.where(sessions.c.digest == digest)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        session = session_of(row)
        is_current = session.expire_time is None or self._database.now() < session.expire_time
        return session if is_current else None

    async def list(
        self,
        *,
        person: str = "",
        key_id: str = "",
        tenants: Collection[str] | None = None,
        options: PageOptions = FIRST_PAGE,
    ) -> Page[Session]:
        """Return a page of the sessions that have not expired, the newest first.

        Args:
            person: only this person's; empty: all.
            key_id: only those that were opened with this key; empty: all.
            tenants: only of these; None: of all.
        """
        query = SESSIONS.where(sessions.c.expire_ms > milliseconds(self._database.now()))
        if person:
            query = query.where(sessions.c.person == person)
        if key_id:
            query = query.where(sessions.c.key_id == key_id)
        if tenants is not None:
            query = query.where(sessions.c.tenant.in_(tenants))
        async with self._database.reading() as connection:
            return await _SESSIONS.page(connection, query, options, session_of)

    async def switch_tenant(self, session_id: str, tenant: str, *, by: Actor) -> Session:
        """Make a session one of another tenant that its person is a member of.

        Raises:
            ResourceNotFound: there is no such session, or the person is no member of the tenant.
            PermissionDenied: it was not opened through the provider, so it does not prove who the
                person is beyond its tenant.
        """
        async with self._database.changing(by) as change:
            session = await _session(change.connection, session_id)
            if session.opened_by != BY_PROVIDER:
                raise PermissionDenied(
                    f"the session was opened by {session.opened_by}, for tenant {session.tenant}"
                    " alone: sign in through the provider to switch"
                )
            if not await member_role(change.connection, tenant, session.person):
                raise ResourceNotFound(f"tenant {tenant} not found")
            is_session = sessions.c.session_id == session_id
            await change.execute(sa.update(sessions).where(is_session).values(tenant=tenant))
            details = {"from": session.tenant}
            name = f"sessions/{session_id}"
            await change.record("sessions.switch", name, tenant=tenant, details=details)
            await change.publish(SESSIONS_TABLE, [session.digest])
            return await _session(change.connection, session_id)

    async def delete(self, session_id: str, *, by: Actor) -> None:
        """End a session. Idempotent."""
        async with self._database.changing(by) as change:
            is_session = sessions.c.session_id == session_id
            tenant = await change.connection.scalar(sa.select(sessions.c.tenant).where(is_session))
            if tenant is None:
                return
            await delete_sessions(change, is_session)
            await change.record("sessions.delete", f"sessions/{session_id}", tenant=tenant)

    async def delete_expired(self) -> int:
        """Delete the sessions that have expired, and return how many. No event is written."""
        async with self._database.changing(SYSTEM) as change:
            return await delete_sessions(change, sessions.c.expire_ms <= change.now_ms)


async def _check_new(change: Change, session: Session) -> None:
    connection = change.connection
    if session.person:
        if (await get_person(connection, session.person)).deactivated:
            raise FailedPrecondition(f"person {session.person} is deactivated")
        if not await member_role(connection, session.tenant, session.person):
            fact = f"person {session.person} is no member of tenant {session.tenant}"
            raise FailedPrecondition(fact)
    if session.key_id:
        is_valid = sa.and_(
            keys.c.key_id == session.key_id,
            keys.c.tenant == session.tenant,
            sa.func.coalesce(keys.c.person, "") == session.person,
            keys.c.revoke_ms.is_(None),
            sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > change.now_ms),
        )
        if await connection.scalar(sa.select(keys.c.key_id).where(is_valid)) is None:
            raise FailedPrecondition(f"key {session.key_id} is not valid for this session")
    elif not session.person:
        raise FailedPrecondition("a session is of a person, of a key, or of both")


async def _end_beyond_bound(change: Change, session: Session) -> None:
    is_same = sessions.c.key_id == session.key_id
    if session.person:
        is_same = sessions.c.person == session.person
    order = sessions.c.create_ms.desc(), sessions.c.expire_ms.desc(), sessions.c.session_id
    kept = sa.select(sessions.c.session_id).where(is_same).order_by(*order).limit(MAX_SESSIONS)
    await delete_sessions(change, sa.and_(is_same, sessions.c.session_id.not_in(kept)))


async def _session(connection: AsyncConnection, session_id: str) -> Session:
    query = SESSIONS.where(sessions.c.session_id == session_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"session {session_id} not found")
    return session_of(row)
