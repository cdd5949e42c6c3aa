"""Deliveries of webhooks in the database: which are due, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import FailedPrecondition, ResourceNotFound
from headrace_control.base.names import new_id
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import SYSTEM, Actor, Page
from headrace_control.base.webhooks import (
    WEBHOOK_TEST,
    DeliveryOutcome,
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
)
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import some_ms
from headrace_control.store.database.transactions import Database, wake_webhooks
from headrace_control.store.database.webhook_tables import (
    webhook_deliveries,
    webhook_endpoints,
    webhook_events,
)
from headrace_control.store.webhooks.endpoints import disable_endpoint, get_endpoint
from headrace_control.store.webhooks.events import insert_event
from headrace_control.store.webhooks.rows import DELIVERIES, delivery_of, endpoint_of

KEPT = timedelta(days=30)
_DELETED_AT_ONCE = 1000
_LISTED = Listing(
    "webhook_deliveries",
    (webhook_deliveries.c.create_ms, webhook_deliveries.c.event_id),
    descending=True,
)


class WebhookDeliveries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self,
        tenant: str,
        endpoint_id: str,
        *,
        state: DeliveryState | None = None,
        options: PageOptions = FIRST_PAGE,
    ) -> Page[WebhookDelivery]:
        """Return a page of an endpoint's deliveries, the newest first.

        Raises:
            ResourceNotFound: the tenant has no such endpoint.
        """
        query = DELIVERIES.where(webhook_deliveries.c.endpoint_id == endpoint_id)
        if state is not None:
            query = query.where(_in_state(state))
        async with self._database.reading() as connection:
            await get_endpoint(connection, tenant, endpoint_id)
            return await _LISTED.page(connection, query, options, delivery_of)

    async def get(self, tenant: str, endpoint_id: str, event_id: str) -> WebhookDelivery:
        """
        Raises:
            ResourceNotFound: the tenant has no such endpoint, or it has no such delivery.
        """
        async with self._database.reading() as connection:
            await get_endpoint(connection, tenant, endpoint_id)
            return await _delivery(connection, endpoint_id, event_id)

    async def test(self, tenant: str, endpoint_id: str, *, by: Actor) -> WebhookDelivery:
        """Add an event of type `webhook.test` for an endpoint.

        Raises:
            ResourceNotFound: the tenant has no such endpoint.
            FailedPrecondition: it is disabled.
        """
        async with self._database.changing(by) as change:
            _require_enabled(await get_endpoint(change.connection, tenant, endpoint_id))
            event = (tenant, WEBHOOK_TEST, endpoint_id, f"test/{new_id()}")
            event_id = await insert_event(change.connection, event, [endpoint_id], change.now_ms)
            name = f"tenants/{tenant}/webhooks/{endpoint_id}"
            await change.record("webhooks.test", name, tenant=tenant)
            return await _delivery(change.connection, endpoint_id, event_id)

    async def resend(
        self, tenant: str, endpoint_id: str, event_id: str, *, by: Actor
    ) -> WebhookDelivery:
        """Make a delivery due now, as one that was never tried.

        Raises:
            ResourceNotFound: there is no such endpoint of the tenant, or no such delivery of it.
            FailedPrecondition: the endpoint is disabled.
        """
        async with self._database.changing(by) as change:
            _require_enabled(await get_endpoint(change.connection, tenant, endpoint_id))
            await _delivery(change.connection, endpoint_id, event_id)
            values = {"next_ms": change.now_ms, "deliver_ms": None, "attempts": 0}
            await change.execute(
                sa.update(webhook_deliveries).where(_is(endpoint_id, event_id)).values(values)
            )
            name = f"tenants/{tenant}/webhooks/{endpoint_id}/deliveries/{event_id}"
            await change.record("webhooks.resend", name, tenant=tenant)
            wake_webhooks(change.connection)
            return await _delivery(change.connection, endpoint_id, event_id)

    async def due_endpoints(self, besides: Collection[str], limit: int) -> tuple[str, ...]:
        """Return ids of enabled endpoints that have deliveries that are due, but for `besides`;
        those first that wait longest."""
        oldest_ms = sa.func.min(webhook_deliveries.c.next_ms)
        query = (
            sa.select(webhook_deliveries.c.endpoint_id)
            .join_from(webhook_deliveries, webhook_endpoints)
            .where(
                webhook_deliveries.c.next_ms <= milliseconds(self._database.now()),
                webhook_deliveries.c.endpoint_id.not_in(besides),
                webhook_endpoints.c.disabled == "",
            )
            .group_by(webhook_deliveries.c.endpoint_id)
            .order_by(oldest_ms)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return tuple((await connection.execute(query)).scalars())

    async def due(
        self, endpoint_id: str, limit: int
    ) -> tuple[WebhookEndpoint, tuple[WebhookDelivery, ...]] | None:
        """Return an enabled endpoint and deliveries of it that are due, those first that are due
        longest; None: there are none."""
        is_enabled = sa.and_(
            webhook_endpoints.c.endpoint_id == endpoint_id, webhook_endpoints.c.disabled == ""
        )
        is_due = webhook_deliveries.c.next_ms <= milliseconds(self._database.now())
        query = DELIVERIES.where(is_due, webhook_deliveries.c.endpoint_id == endpoint_id)
        order = webhook_deliveries.c.next_ms, webhook_deliveries.c.event_id
        async with self._database.reading() as connection:
            enabled = await connection.execute(sa.select(webhook_endpoints).where(is_enabled))
            if (row := enabled.one_or_none()) is None:
                return None
            rows = await connection.execute(query.order_by(*order).limit(limit))
            due = tuple(map(delivery_of, rows))
        return (endpoint_of(row), due) if due else None

    async def record(self, delivery: WebhookDelivery, outcome: DeliveryOutcome) -> bool:
        """Record what became of an attempt; False, and nothing recorded, if the delivery was
        changed meanwhile: deleted, resent, given up, or sent by another process as well."""
        is_same = sa.and_(
            _is(delivery.endpoint_id, delivery.event.event_id),
            webhook_deliveries.c.attempts == delivery.attempts,
            webhook_deliveries.c.next_ms == some_ms(delivery.next_time),
        )
        async with self._database.changing(SYSTEM) as change:
            values = {
                "attempts": delivery.attempts + 1,
                "last_attempt_ms": change.now_ms,
                "last_status": outcome.status,
                "last_error": outcome.error,
                "next_ms": some_ms(outcome.next_time),
                "deliver_ms": None if outcome.error else change.now_ms,
            }
            done = await change.execute(sa.update(webhook_deliveries).where(is_same).values(values))
            if done.rowcount and outcome.disables:
                tenant, endpoint_id = delivery.event.tenant, delivery.endpoint_id
                await disable_endpoint(change, tenant, endpoint_id, outcome.disables)
            return bool(done.rowcount)

    async def counts(self) -> tuple[int, int]:
        """Return how many deliveries wait, and how many are dead letters."""
        found = []
        async with self._database.reading() as connection:
            for state in (DeliveryState.PENDING, DeliveryState.DEAD):
                query = sa.select(sa.func.count()).select_from(webhook_deliveries)
                found.append(await connection.scalar(query.where(_in_state(state))) or 0)
        return found[0], found[1]

    async def delete_old(self) -> int:
        """Delete events of more than KEPT ago that wait for no endpoint, and return how many; at
        most _DELETED_AT_ONCE."""
        old_ms = milliseconds(self._database.now() - KEPT)
        waits = sa.exists().where(
            webhook_deliveries.c.event_id == webhook_events.c.event_id,
            webhook_deliveries.c.next_ms.is_not(None),
        )
        query = sa.select(webhook_events.c.event_id).where(webhook_events.c.create_ms < old_ms)
        query = query.where(~waits).limit(_DELETED_AT_ONCE)
        async with self._database.writing() as connection:
            ids = list((await connection.execute(query)).scalars())
            for start in range(0, len(ids), 500):
                some = ids[start : start + 500]
                for table in (webhook_deliveries, webhook_events):
                    await connection.execute(sa.delete(table).where(table.c.event_id.in_(some)))
        return len(ids)

    async def wait_for_changes(self, timeout_s: float) -> None:
        """Return once this process has added what is due, or after `timeout_s`. It may return
        early."""
        due = self._database.webhooks_due
        try:
            async with asyncio.timeout(timeout_s):
                await due.wait()
        except TimeoutError:
            return
        due.clear()


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled:
        raise FailedPrecondition(
            f"webhook endpoint {endpoint.endpoint_id} is disabled: {endpoint.disabled}. Enable it"
            " first (update it with disabled = false)"
        )


def _is(endpoint_id: str, event_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.event_id == event_id
    )


def _in_state(state: DeliveryState) -> sa.ColumnElement[bool]:
    delivered, waits = webhook_deliveries.c.deliver_ms, webhook_deliveries.c.next_ms
    match state:
        case DeliveryState.DELIVERED:
            return delivered.is_not(None)
        case DeliveryState.PENDING:
            return waits.is_not(None)
        case DeliveryState.DEAD:
            return sa.and_(delivered.is_(None), waits.is_(None))


async def _delivery(
    connection: AsyncConnection, endpoint_id: str, event_id: str
) -> WebhookDelivery:
    query = DELIVERIES.where(_is(endpoint_id, event_id))
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"delivery {event_id} of webhook endpoint {endpoint_id} not found")
    return delivery_of(row)
