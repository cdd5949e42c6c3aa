"""What ends with something else, as parts of one change: keys and sessions of a person, of a
membership, of a key."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import KEYS_TABLE, SESSIONS_TABLE
from headrace_control.store.database.published import in_parts
from headrace_control.store.database.tables import keys, members, sessions
from headrace_control.store.database.transactions import Change

Condition = sa.ColumnElement[bool]


async def revoke_keys(change: Change, which: Condition) -> int:
    """Revoke the keys that are not revoked yet, with the sessions that were opened with them."""
    query = sa.select(keys.c.key_id, keys.c.tenant).where(which, keys.c.revoke_ms.is_(None))
    found = (await change.execute(query.order_by(keys.c.key_id))).all()
    ids = [row.key_id for row in found]
    for some in in_parts(ids):
        values: dict[str, Any] = {
            "revoke_ms": change.now_ms,
            "update_ms": change.now_ms,
            "digests": "[]",
        }
        await change.execute(sa.update(keys).where(keys.c.key_id.in_(some)).values(values))
        await delete_sessions(change, sessions.c.key_id.in_(some))
    for row in found:
        resource = f"tenants/{row.tenant}/keys/{row.key_id}"
        await change.record("keys.revoke", resource, tenant=row.tenant)
    await change.publish(KEYS_TABLE, ids)
    return len(ids)


async def delete_sessions(change: Change, which: Condition) -> int:
    """Delete sessions, and return how many."""
    digests = await _digests(change, which)
    await change.execute(sa.delete(sessions).where(which))
    await change.publish(SESSIONS_TABLE, digests)
    return len(digests)


async def rewrite_sessions(change: Change, which: Condition) -> None:
    """Publish sessions anew: what they follow from has changed."""
    await change.publish(SESSIONS_TABLE, await _digests(change, which))


async def rewrite_keys(change: Change, which: Condition) -> None:
    """Publish keys anew: what they follow from has changed."""
    query = sa.select(keys.c.key_id).where(which, keys.c.revoke_ms.is_(None))
    ids = list((await change.execute(query.order_by(keys.c.key_id))).scalars())
    await change.publish(KEYS_TABLE, ids)


async def member_role(connection: AsyncConnection, tenant: str, person: str) -> str:
    """Return the person's role in the tenant; empty: no member."""
    of_member = sa.and_(members.c.tenant == tenant, members.c.person == person)
    return await connection.scalar(sa.select(members.c.role).where(of_member)) or ""


async def _digests(change: Change, which: Condition) -> list[str]:
    query = sa.select(sessions.c.digest).where(which).order_by(sessions.c.digest)
    return list((await change.execute(query)).scalars())
