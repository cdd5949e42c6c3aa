"""Keys in the database: their digests, never their secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import KEYS_TABLE
from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import Actor, Digest, Key, Page, Tenant
from headrace_control.store.changes import changed
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import (
    digests_of,
    digests_text,
    key_of,
    key_values,
)
from headrace_control.store.database.tables import keys, sessions
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.endings import member_role, revoke_keys, rewrite_sessions
from headrace_control.store.tenants import create_tenant, tenant_exists

MAX_TENANTS_KEYS, MAX_PERSONS_KEYS = 10_000, 100
"""Of one tenant, and of one person in it, that are neither revoked nor expired. Every gateway holds
all keys in memory."""
_KEYS = Listing("keys", (keys.c.create_ms, keys.c.key_id), descending=True)


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, key: Key, digest: Digest, *, make_tenant: bool = False, by: Actor
    ) -> Key:
        """Create a key, and return it as it is kept.

        Args:
            make_tenant: whether a tenant that there is not yet is made, in the same transaction.

        Raises:
            ResourceNotFound: there is no such tenant, and `make_tenant` is not set.
            ResourceExists: there is a key of this id.
            FailedPrecondition: its person is no member of the tenant, or there are too many keys.
        """
        async with self._database.changing(by) as change:
            return await _create(change, key, digest, make_tenant=make_tenant)

    async def create_first(self, first: Sequence[tuple[Key, Digest]], *, by: Actor) -> bool:
        """Create these keys, all or none, and their tenants; False if the database has a key.

        A revoked key is one, too: whoever has ended the first keys does not get them back.
        """
        async with self._database.changing(by) as change:
            if await change.connection.scalar(sa.select(sa.func.count()).select_from(keys)):
                return False
            for key, digest in first:
                await _create(change, key, digest, make_tenant=True)
            return True

    async def count(self) -> int:
        """Return how many keys there are, revoked ones too: 0 in a new database."""
        async with self._database.reading() as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(keys)) or 0

    async def pepper_ids(self) -> frozenset[str]:
        """Return the ids of the peppers of all keys that are not revoked."""
        found = sa.select(keys.c.digests).where(keys.c.revoke_ms.is_(None))
        async with self._database.reading() as connection:
            texts = (await connection.scalars(found)).all()
        return frozenset(each.pepper_id for text in texts for each in digests_of(text))

    async def get(self, tenant_id: str, key_id: str) -> Key:
        """Return the tenant's key of this id, revoked or not.

        Raises:
            ResourceNotFound: the tenant has none of this id, whoever else may have it.
        """
        async with self._database.reading() as connection:
            return await _key(connection, tenant_id, key_id)

    async def find(self, key_id: str) -> Key:
        """Return the key of this id, of whichever tenant.

        Raises:
            ResourceNotFound: there is none.
        """
        async with self._database.reading() as connection:
            return await _key(connection, "", key_id)

    async def list(
        self,
        tenant_id: str = "",
        *,
        person: str = "",
        show_ended: bool = False,
        options: PageOptions = FIRST_PAGE,
    ) -> Page[Key]:
        """Return a page of keys, the newest first.

        Args:
            tenant_id: whose; empty: of all tenants.
            person: only this person's; empty: all.
            show_ended: revoked and expired ones too.
        """
        query = sa.select(keys)
        if tenant_id:
            query = query.where(keys.c.tenant == tenant_id)
        if person:
            query = query.where(keys.c.person == person)
        if not show_ended:
            query = query.where(_is_valid(milliseconds(self._database.now())))
        async with self._database.reading() as connection:
            return await _KEYS.page(connection, query, options, key_of)

    async def update(
        self, tenant_id: str, key_id: str, edit: Callable[[Key], Key], *, by: Actor
    ) -> Key:
        """Replace a key by what `edit` makes of it: its display name, scopes, models, networks,
        limits, labels and expiry. Whatever else `edit` returns stays as it was.

        Raises:
            ResourceNotFound: the tenant has none of this id.
            FailedPrecondition: it is revoked.
        """
        async with self._database.changing(by) as change:
            before = _not_revoked(await _key(change.connection, tenant_id, key_id))
            after = edit(before)
            await _set(change, before, {**key_values(after), "update_ms": change.now_ms})
            return await _changed(change, before, "keys.update", changed(before, after))

    async def rotate(
        self,
        tenant_id: str,
        key_id: str,
        digest: Digest,
        *,
        redacted: str,
        old_ends: datetime,
        by: Actor,
    ) -> Key:
        """Give a key a new secret. The one before it is valid until `old_ends`, not longer than it
        was before; one that is older still ends now, for a key has at most two.

        Raises:
            ResourceNotFound: the tenant has none of this id.
            FailedPrecondition: it is revoked or expired.
        """
        async with self._database.changing(by) as change:
            key = _not_revoked(await _key(change.connection, tenant_id, key_id))
            if not key.is_valid_at(change.now):
                raise FailedPrecondition(f"key {key_id} expired at {key.expire_time}")
            newest = key.digests[0]
            ends = min(old_ends, newest.expire_time or old_ends)
            old = Digest(newest.digest, newest.pepper_id, ends)
            digests = [digest, old] if ends > change.now else [digest]
            values: dict[str, Any] = {"digests": digests_text(digests), "redacted": redacted}
            await _set(change, key, {**values, "update_ms": change.now_ms})
            details = {"redacted": redacted, "old_ends_ms": milliseconds(ends)}
            return await _changed(change, key, "keys.rotate", details)

    async def revoke(self, tenant_id: str, key_id: str, *, by: Actor) -> Key:
        """End a key for good, with the sessions that were opened with it. Idempotent.

        Args:
            tenant_id: empty: whichever tenant has it.

        Raises:
            ResourceNotFound: there is none of this id.
        """
        async with self._database.changing(by) as change:
            key = await _key(change.connection, tenant_id, key_id)
            if key.revoke_time is not None:
                return key
            await revoke_keys(change, keys.c.key_id == key_id)
            return await _key(change.connection, tenant_id, key_id)


async def _create(change: Change, key: Key, digest: Digest, *, make_tenant: bool) -> Key:
    if not await tenant_exists(change.connection, key.tenant):
        if not make_tenant:
            raise ResourceNotFound(f"tenant {key.tenant} not found")
        await create_tenant(change, Tenant(key.tenant))
    await _check_new(change, key)
    values = {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "person": key.person or None,
        "redacted": key.redacted,
        "digests": digests_text([digest]),
        "create_ms": change.now_ms,
        "update_ms": change.now_ms,
        "last_use_client": "",
        **key_values(key),
    }
    await change.execute(sa.insert(keys).values(values))
    details = changed(Key(key.key_id, key.tenant), key)
    return await _changed(change, key, "keys.create", details)


async def _check_new(change: Change, key: Key) -> None:
    connection, query = change.connection, sa.select(keys.c.key_id)
    if await connection.scalar(query.where(keys.c.key_id == key.key_id)) is not None:
        raise ResourceExists(f"key {key.key_id} exists")
    of_tenant = sa.and_(keys.c.tenant == key.tenant, _is_valid(change.now_ms))
    await _check_bound(connection, of_tenant, MAX_TENANTS_KEYS, f"tenant {key.tenant}")
    if not key.person:
        return
    if not await member_role(connection, key.tenant, key.person):
        raise FailedPrecondition(f"person {key.person} is no member of tenant {key.tenant}")
    of_person = sa.and_(of_tenant, keys.c.person == key.person)
    who = f"person {key.person} in tenant {key.tenant}"
    await _check_bound(connection, of_person, MAX_PERSONS_KEYS, who)


async def _check_bound(
    connection: AsyncConnection, which: sa.ColumnElement[bool], most: int, who: str
) -> None:
    count = sa.select(sa.func.count()).select_from(keys).where(which)
    if (await connection.scalar(count) or 0) >= most:
        raise FailedPrecondition(
            f"{who} has {most} keys, and may have no more: revoke those that are not used"
        )


def _is_valid(now_ms: int) -> sa.ColumnElement[bool]:
    is_current = sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > now_ms)
    return sa.and_(keys.c.revoke_ms.is_(None), is_current)


def _not_revoked(key: Key) -> Key:
    if key.revoke_time is not None:
        raise FailedPrecondition(f"key {key.key_id} is revoked: create another one")
    return key


async def _key(connection: AsyncConnection, tenant_id: str, key_id: str) -> Key:
    query = sa.select(keys).where(keys.c.key_id == key_id)
    if tenant_id:
        query = query.where(keys.c.tenant == tenant_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"key {key_id} not found")
    return key_of(row)


async def _set(change: Change, key: Key, values: dict[str, Any]) -> None:
    await change.execute(sa.update(keys).where(keys.c.key_id == key.key_id).values(values))


async def _changed(change: Change, key: Key, action: str, details: dict[str, Any]) -> Key:
    resource = f"tenants/{key.tenant}/keys/{key.key_id}"
    await change.record(action, resource, tenant=key.tenant, details=details)
    await change.publish(KEYS_TABLE, [key.key_id])
    await rewrite_sessions(change, sessions.c.key_id == key.key_id)
    return await _key(change.connection, key.tenant, key.key_id)
