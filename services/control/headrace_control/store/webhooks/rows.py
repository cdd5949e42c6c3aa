"""Endpoints and deliveries from rows of the database, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace_control.base.published_rows import EPOCH, time_of
from headrace_control.base.webhooks import (
    DeliveryState,
    SealedSecret,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from headrace_control.store.database.records import some_ms
from headrace_control.store.database.webhook_tables import (
    webhook_deliveries,
    webhook_events,
)

Row = sa.Row[Any]

DELIVERIES = sa.select(
    webhook_deliveries,
    webhook_events.c.tenant,
    webhook_events.c.type,
    webhook_events.c.data_id,
    webhook_events.c.create_ms.label("event_ms"),
).join_from(webhook_deliveries, webhook_events)


def endpoint_of(row: Row) -> WebhookEndpoint:
    return WebhookEndpoint(
        endpoint_id=row.endpoint_id,
        tenant=row.tenant,
        url=row.url,
        display_name=row.display_name,
        event_types=tuple(json.loads(row.event_types)),
        labels=json.loads(row.labels),
        secrets=secrets_of(row.secrets),
        disabled=row.disabled,
        create_time=time_of(row.create_ms),
        update_time=time_of(row.update_ms),
    )


def endpoint_values(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """Return what a change may change; not whose it is, nor its secrets."""
    return {
        "url": endpoint.url,
        "display_name": endpoint.display_name,
        "event_types": json.dumps(endpoint.event_types),
        "labels": json.dumps(dict(endpoint.labels), sort_keys=True),
        "disabled": endpoint.disabled,
    }


def secrets_of(text: str) -> tuple[SealedSecret, ...]:
    return tuple(SealedSecret(s["sealed"], _time(s["expire_ms"])) for s in json.loads(text))


def secrets_text(secrets: Iterable[SealedSecret]) -> str:
    found = [{"sealed": s.sealed, "expire_ms": some_ms(s.expire_time)} for s in secrets]
    return json.dumps(found)


def delivery_of(row: Row) -> WebhookDelivery:
    """Return the delivery of a row of DELIVERIES."""
    event = WebhookEvent(
        row.event_id, row.tenant, row.type, row.data_id, time_of(row.event_ms) or EPOCH
    )
    if row.deliver_ms is not None:
        state = DeliveryState.DELIVERED
    else:
        state = DeliveryState.DEAD if row.next_ms is None else DeliveryState.PENDING
    return WebhookDelivery(
        event,
        row.endpoint_id,
        state,
        attempts=row.attempts,
        next_time=_time(row.next_ms),
        last_attempt_time=_time(row.last_attempt_ms),
        deliver_time=_time(row.deliver_ms),
        last_status=row.last_status,
        last_error=row.last_error,
    )


def _time(row_ms: int | None) -> datetime | None:
    return None if row_ms is None else time_of(row_ms)
