"""Keys, tenants and sessions as control publishes them, without control."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

from headrace.auth.keys import key_id_of, new_key
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import ANY_MODEL, USER_SCOPES
from headrace.bus import Tables
from headrace.bus.subjects import (
    KEYS_TABLE,
    SESSIONS_TABLE,
    TABLE_STAMP,
    TABLES,
    TENANTS_TABLE,
    tenant_row,
)
from headrace.internal.v1.access_pb2 import KeyRow, SessionRow, TableStamp, TenantRow
from headrace.v1.common_pb2 import Priority

PEPPER = b"p" * 32
PEPPERS = Peppers({"one": PEPPER})


def write_secret(path: Path, content: str) -> Path:
    """Write a file that only its owner may read; return its path."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    return path


def write_peppers(path: Path) -> Path:
    """Write the file of `PEPPERS`; return its path."""
    return write_secret(path, f"one {base64.b64encode(PEPPER).decode()}\n")


def key_row(
    key: str,
    tenant: str = "default",
    *,
    scopes: Iterable[str] = USER_SCOPES,
    models: Iterable[str] = (ANY_MODEL,),
    networks: Iterable[str] = (),
    expire_ms: int = 0,
    person: str = "",
) -> KeyRow:
    return KeyRow(
        key_id=key_id_of(key) or "",
        tenant=tenant,
        person=person,
        digests=[PEPPERS.digest(key)],
        expire_ms=expire_ms,
        scopes=scopes,
        models=models,
        networks=networks,
    )


def session_row(
    tenant: str = "default", *, role: str = "", key_id: str = "", expire_ms: int = 0
) -> SessionRow:
    return SessionRow(
        session_id="one",
        tenant=tenant,
        person="" if key_id else "ann",
        role=role,
        key_id=key_id,
        expire_ms=expire_ms or round(time.time() * 1000) + 3_600_000,
    )


def cookie_digest(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()


class PublishedTables:
    """Writes rows as control does.

    tables = PublishedTables(bus)
    await tables.tenant("a")
    key = await tables.key("a", scopes=["generate"])
    await tables.stamp()  # from now on gateways believe what there is
    """

    def __init__(self, bus: Tables) -> None:
        self._bus = bus

    async def stamp(self, time_ms: int = 0) -> None:
        """Say that all tables are complete; as of now, if no time is given."""
        stamp = TableStamp(time_ms=time_ms or round(time.time() * 1000)).SerializeToString()
        for table in TABLES:
            await self._bus.put_row(table, TABLE_STAMP, stamp)

    async def tenant(
        self,
        name: str,
        *,
        disabled: bool = False,
        default_priority: Priority.ValueType = Priority.PRIORITY_UNSPECIFIED,
        highest_priority: Priority.ValueType = Priority.PRIORITY_UNSPECIFIED,
        weight: float = 0.0,
        networks: Iterable[str] = (),
    ) -> None:
        row = TenantRow(
            tenant=name,
            disabled=disabled,
            default_priority=default_priority,
            highest_priority=highest_priority,
            weight=weight,
            networks=networks,
        )
        await self._bus.put_row(TENANTS_TABLE, tenant_row(name), row.SerializeToString())

    async def key(
        self,
        tenant: str = "default",
        *,
        scopes: Iterable[str] = USER_SCOPES,
        models: Iterable[str] = (ANY_MODEL,),
        networks: Iterable[str] = (),
        expire_ms: int = 0,
    ) -> str:
        """Make a key; return it."""
        key = new_key()
        row = key_row(
            key, tenant, scopes=scopes, models=models, networks=networks, expire_ms=expire_ms
        )
        await self.put_key(row)
        return key

    async def put_key(self, row: KeyRow) -> None:
        await self._bus.put_row(KEYS_TABLE, row.key_id, row.SerializeToString())

    async def revoke(self, key: str) -> None:
        await self._bus.delete_row(KEYS_TABLE, key_id_of(key) or "")

    async def session(
        self, tenant: str = "default", *, role: str = "", key: str = "", expire_ms: int = 0
    ) -> str:
        """Open a session; return the cookie's value."""
        cookie = token_urlsafe(32)
        row = session_row(tenant, role=role, key_id=key_id_of(key) or "", expire_ms=expire_ms)
        digest = cookie_digest(cookie)
        await self._bus.put_row(SESSIONS_TABLE, digest, row.SerializeToString())
        return cookie

    async def sign_out(self, cookie: str) -> None:
        await self._bus.delete_row(SESSIONS_TABLE, cookie_digest(cookie))
