"""The tables of keys, tenants and sessions, as gateways, schedulers and control watch them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.auth.known_rows import KnownRows
from headrace.auth.networks import Networks, parse_networks
from headrace.bus import Tables
from headrace.bus.subjects import (
    ACCESS_TABLES,
    KEYS_TABLE,
    SESSIONS_TABLE,
    TENANTS_TABLE,
    tenant_row,
)
from headrace.clock import Clock
from headrace.internal.v1.access_pb2 import KeyDigest, KeyRow, Limits, SessionRow, TenantRow
from headrace.telemetry.condition_log import ConditionLog
from headrace.v1.common_pb2 import Priority

log = logging.getLogger(__name__)

OLD_S = 24 * 3600.0
"""Tables whose last stamp is older are warned about; what they say stays in force."""
_CHECK_S = 30.0

Priorities = tuple[Priority.ValueType, Priority.ValueType]
# Why once: each look at a member of an enumeration of protobuf takes 3 us.
USUAL_PRIORITIES: Priorities = (Priority.PRIORITY_STANDARD, Priority.PRIORITY_INTERACTIVE)
"""Of a tenant that has no row, or none in it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the table of keys, made ready for its use in every call."""

    key_id: str
    tenant: str
    person: str
    expire_ms: int
    digests: tuple[KeyDigest, ...]
    scopes: frozenset[str]
    models: frozenset[str]
    networks: Networks
    limits: Limits
    model_limits: Mapping[str, Limits]
    """Of single models, besides `limits`."""

    @classmethod
    def parse(cls, data: bytes) -> Key:
        row = KeyRow.FromString(data)
        return cls(
            row.key_id,
            row.tenant,
            row.person,
            row.expire_ms,
            tuple(row.digests),
            frozenset(row.scopes),
            frozenset(row.models),
            parse_networks(row.networks),
            row.limits,
            {each.model: each.limits for each in row.model_limits},
        )


@dataclass(frozen=True, slots=True)
class Tenant:
    """A row of the table of tenants."""

    row: TenantRow
    disabled: bool
    priorities: Priorities
    """The default, and the highest."""
    networks: Networks
    model_limits: Mapping[str, Limits]
    """Of single models, besides `row.limits`."""

    @classmethod
    def parse(cls, data: bytes) -> Tenant:
        row = TenantRow.FromString(data)
        default, highest = USUAL_PRIORITIES
        return cls(
            row,
            row.disabled,
            (row.default_priority or default, row.highest_priority or highest),
            parse_networks(row.networks),
            {each.model: each.limits for each in row.model_limits},
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A row of the table of sessions."""

    row: SessionRow
    scopes: frozenset[str]
    models: frozenset[str]
    networks: Networks

    @classmethod
    def parse(cls, data: bytes) -> Session:
        row = SessionRow.FromString(data)
        networks = parse_networks(row.networks)
        return cls(row, frozenset(row.scopes), frozenset(row.models), networks)


class AccessTables:
    """The three tables; empty until they have been read while `watching`.

    Where control does not run they stay empty, which stops nothing where no keys are required.
    """

    def __init__(self, bus: Tables, clock: Clock, names: Iterable[str] = ACCESS_TABLES) -> None:
        """`names`: the tables that this process needs."""
        self._bus, self._clock = bus, clock
        self._keys = KnownRows(Key.parse, partial(_unreadable, KEYS_TABLE))
        self._tenants = KnownRows(Tenant.parse, partial(_unreadable, TENANTS_TABLE))
        self._sessions = KnownRows(Session.parse, partial(_unreadable, SESSIONS_TABLE))
        tables: dict[str, KnownRows[Any]] = {
            KEYS_TABLE: self._keys,
            TENANTS_TABLE: self._tenants,
            SESSIONS_TABLE: self._sessions,
        }
        self._tables = {name: tables[name] for name in names}
        self._age = ConditionLog(log, active="access.tables_old", cleared="access.tables_current")

    def key(self, key_id: str) -> Key | None:
        return self._keys.rows.get(key_id)

    def tenant(self, name: str) -> Tenant | None:
        return self._tenants.rows.get(tenant_row(name))

    def weights(self) -> dict[str, float]:
        """Return the weights of all tenants whose weight is not 1."""
        rows = (tenant.row for tenant in self._tenants.rows.values())
        weights = {row.tenant: row.weight for row in rows if 0 < row.weight < math.inf}
        return {tenant: weight for tenant, weight in weights.items() if weight != 1}

    def limited_tenants(self) -> set[str]:
        """Return the tenants that have limits of their own, or keys with limits."""
        tenants = self._tenants.rows.values()
        limited = {t.row.tenant for t in tenants if t.row.limits.ByteSize() or t.model_limits}
        keys = self._keys.rows.values()
        return limited | {k.tenant for k in keys if k.limits.ByteSize() or k.model_limits}

    def session(self, digest: str) -> Session | None:
        """Return the session whose cookie has this SHA-256, in hexadecimal."""
        return self._sessions.rows.get(digest)

    def was_revoked(self, key_id: str) -> bool:
        """Return whether the key was revoked while this process watched."""
        return self._keys.was_deleted(key_id)

    def not_ready_reason(self) -> str | None:
        """Return why no caller can be checked yet; None if callers can be."""
        missing = [name for name, table in self._tables.items() if not table.is_whole]
        if missing:
            return f"control has not published the tables {', '.join(missing)} yet"
        return None

    def age_s(self) -> float | None:
        """Return the time since control last found the oldest table complete; None: never."""
        stamps = [table.stamp_ms for table in self._tables.values()]
        if None in stamps:
            return None
        return max(0.0, self._clock.unix_s() - min(filter(None, stamps), default=0) / 1000)

    @asynccontextmanager
    async def watching(
        self, on_change: Callable[[], None] | None = None
    ) -> AsyncIterator[AccessTables]:
        """Watch the tables for the length of a `with`.

        `on_change` is called after each change of any of them; it must not block.
        """
        async with AsyncExitStack() as stack:
            for name, table in self._tables.items():
                watch = await self._bus.watch_table(
                    name,
                    _then(table.on_table, on_change),
                    _then(table.on_row, on_change),
                )
                stack.push_async_callback(watch.close)
            checking = asyncio.create_task(self._check_often())
            stack.callback(checking.cancel)
            yield self

    def check_age(self) -> None:
        """Warn about tables that control has not stamped for a day."""
        now_s, age_s = self._clock.monotonic_s(), self.age_s()
        if age_s is not None and age_s > OLD_S:
            self._age.active(now_s, age_s=round(age_s))
        else:
            self._age.cleared(now_s)

    async def _check_often(self) -> None:
        while True:
            self.check_age()
            await asyncio.sleep(_CHECK_S)


def _then(act: Callable[..., None], on_change: Callable[[], None] | None) -> Callable[..., None]:
    if on_change is None:
        return act

    def both(*args: Any) -> None:
        act(*args)
        on_change()

    return both


def _unreadable(table: str, key: str, error: str) -> None:
    log.error("access.row_unreadable", extra={"table": table, "key": key, "error": error})
