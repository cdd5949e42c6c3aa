"""Events that tenants are told of by webhooks, added within the change that makes them true."""

from __future__ import annotations

import json
import secrets

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.webhooks import EVENT_TYPES
from headrace_control.store.database.transactions import wake_webhooks
from headrace_control.store.database.webhook_tables import (
    webhook_deliveries,
    webhook_endpoints,
    webhook_events,
)

MAX_PENDING = 10_000
"""Deliveries that wait for one endpoint. What comes beyond is kept as a dead letter at once."""
TOO_MANY = f"{MAX_PENDING} deliveries waited for this endpoint already"


async def add_event(
    connection: AsyncConnection,
    tenant: str,
    event_type: str,
    data_id: str,
    unique_key: str,
    now_ms: int,
) -> str:
    """Add an event in a transaction that writes; it is sent once that is committed.

    It is kept only for endpoints of the tenant that are enabled and want its type: without any,
    this costs one look-up. Adding is idempotent while the event is kept, which is 30 days.

        await add_event(change.connection, "acme", "batch.completed", "batch_8f3c",
                        "batch_8f3c/completed", change.now_ms)

    Args:
        event_type: one of EVENT_TYPES.
        data_id: id of what it is about, all that is sent of it.
        unique_key: of the fact within the tenant; the same fact is one event.

    Returns:
        Its id, evt_...; empty: no endpoint gets it, or it was added before.
    """
    assert event_type in EVENT_TYPES, event_type
    endpoint_ids = await _subscribed(connection, tenant, event_type)
    if not endpoint_ids:
        return ""
    return await insert_event(
        connection, (tenant, event_type, data_id, unique_key), endpoint_ids, now_ms
    )


async def insert_event(
    connection: AsyncConnection,
    event: tuple[str, str, str, str],
    endpoint_ids: list[str],
    now_ms: int,
) -> str:
    """Insert an event (tenant, type, data id, unique key) for these endpoints, whatever they want;
    return its id, empty if it was added before."""
    event_id = f"evt_{secrets.token_hex(16)}"
    fields = ("tenant", "type", "data_id", "unique_key")
    values = {"event_id": event_id, **dict(zip(fields, event, strict=True)), "create_ms": now_ms}
    is_postgres = connection.dialect.name == "postgresql"
    insert = postgresql.insert if is_postgres else sqlite.insert
    once = insert(webhook_events).values(values)
    once = once.on_conflict_do_nothing(index_elements=["tenant", "unique_key"])
    if not (await connection.execute(once)).rowcount:
        return ""
    wake_webhooks(connection)
    for endpoint_id in endpoint_ids:
        is_full = await _pending(connection, endpoint_id) >= MAX_PENDING
        delivery = {
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "next_ms": None if is_full else now_ms,
            "attempts": 0,
            "last_status": 0,
            "last_error": TOO_MANY if is_full else "",
            "create_ms": now_ms,
        }
        await connection.execute(sa.insert(webhook_deliveries).values(delivery))
    return event_id


async def delete_webhooks(connection: AsyncConnection, tenant: str) -> None:
    """Delete all endpoints and events of a tenant."""
    event_ids = sa.select(webhook_events.c.event_id).where(webhook_events.c.tenant == tenant)
    of_tenant = webhook_deliveries.c.event_id.in_(event_ids)
    await connection.execute(sa.delete(webhook_deliveries).where(of_tenant))
    for table in (webhook_events, webhook_endpoints):
        await connection.execute(sa.delete(table).where(table.c.tenant == tenant))


async def _subscribed(connection: AsyncConnection, tenant: str, event_type: str) -> list[str]:
    query = sa.select(webhook_endpoints.c.endpoint_id, webhook_endpoints.c.event_types)
    is_enabled = webhook_endpoints.c.disabled == ""
    query = query.where(webhook_endpoints.c.tenant == tenant, is_enabled)
    rows = (await connection.execute(query.order_by(webhook_endpoints.c.endpoint_id))).all()
    typed = ((row.endpoint_id, json.loads(row.event_types)) for row in rows)
    return [endpoint_id for endpoint_id, types in typed if not types or event_type in types]


async def _pending(connection: AsyncConnection, endpoint_id: str) -> int:
    """Return how many deliveries wait for an endpoint; no more than MAX_PENDING are counted."""
    of_endpoint = webhook_deliveries.c.endpoint_id == endpoint_id
    waits = sa.select(sa.literal(1)).where(of_endpoint, webhook_deliveries.c.next_ms.is_not(None))
    counted = sa.select(sa.func.count()).select_from(waits.limit(MAX_PENDING).subquery())
    return await connection.scalar(counted) or 0
