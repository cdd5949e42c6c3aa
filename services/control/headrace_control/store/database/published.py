"""What the database says that the tables on the bus hold: the one place that says so.

The outbox gets its rows from here, row by row, and a check of whole tables does too; so the two
cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import KEYS_TABLE, PRICES_TABLE, SESSIONS_TABLE, TENANTS_TABLE
from headrace_control.base.published_rows import key_row, price_row, session_row, tenant_row
from headrace_control.base.records import Limits
from headrace_control.store.database.billing_tables import prices
from headrace_control.store.database.records import (
    key_of,
    limits_of,
    price_of,
    session_of,
    tenant_of,
)
from headrace_control.store.database.tables import keys, members, plans, sessions, tenants

T = TypeVar("T")

_PART = 500
"""Most rows that one statement names: both databases bound the parameters of one."""

TENANTS = sa.select(tenants, plans.c.limits, plans.c.plan_id).select_from(
    tenants.outerjoin(plans, tenants.c.plan == plans.c.plan_id)
)
KEYS = (
    sa.select(keys, members.c.role)
    .select_from(
        keys.outerjoin(
            members, sa.and_(members.c.tenant == keys.c.tenant, members.c.person == keys.c.person)
        )
    )
    .where(keys.c.revoke_ms.is_(None))
)
SESSIONS = sa.select(
    sessions,
    members.c.role,
    keys.c.expire_ms.label("key_expire_ms"),
    keys.c.scopes.label("key_scopes"),
    keys.c.models.label("key_models"),
    keys.c.networks.label("key_networks"),
).select_from(
    sessions.outerjoin(
        members,
        sa.and_(members.c.tenant == sessions.c.tenant, members.c.person == sessions.c.person),
    ).outerjoin(keys, keys.c.key_id == sessions.c.key_id)
)
_QUERIES: dict[str, tuple[sa.Select[Any], sa.Column[str]]] = {
    TENANTS_TABLE: (TENANTS, tenants.c.tenant_id),
    KEYS_TABLE: (KEYS, keys.c.key_id),
    SESSIONS_TABLE: (SESSIONS, sessions.c.digest),
    PRICES_TABLE: (sa.select(prices), prices.c.price_id),
}


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in parts that one statement may name."""
    for start in range(0, len(items), _PART):
        yield items[start : start + _PART]


async def rows_of(
    connection: AsyncConnection, table: str, names: Sequence[str] | None = None
) -> dict[str, bytes]:
    """Return the rows of these keys of a table on the bus, or all; what is absent has no row."""
    query, column = _QUERIES[table]
    if names is not None:
        query = query.where(column.in_(names))
    found: dict[str, bytes] = {}
    for row in await connection.execute(query):
        if table == TENANTS_TABLE:
            limits = Limits() if row.plan_id is None else limits_of(row.limits)
            found[row.tenant_id] = tenant_row(tenant_of(row), limits)
        elif table == KEYS_TABLE:
            found[row.key_id] = key_row(key_of(row), row.role or "")
        elif table == PRICES_TABLE:
            found[row.price_id] = price_row(price_of(row))
        else:
            found[row.digest] = session_row(session_of(row))
    return found
