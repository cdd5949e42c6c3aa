"""Endpoints of webhooks in the database; their secrets are encrypted before they come here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import FailedPrecondition, ResourceNotFound
from headrace_control.base.names import new_id
from headrace_control.base.records import Actor, Page, Tenant
from headrace_control.base.webhooks import SealedSecret, WebhookEndpoint
from headrace_control.store.changes import changed
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.database.webhook_tables import (
    webhook_deliveries,
    webhook_endpoints,
)
from headrace_control.store.tenants import create_tenant, tenant_exists
from headrace_control.store.webhooks.rows import (
    endpoint_of,
    endpoint_values,
    secrets_of,
    secrets_text,
)

MAX_ENDPOINTS = 20
"""Of one tenant."""
_ENDPOINTS = Listing(
    "webhook_endpoints",
    (webhook_endpoints.c.create_ms, webhook_endpoints.c.endpoint_id),
    descending=True,
)


class WebhookEndpoints:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, endpoint: WebhookEndpoint, sealed: str, *, make_tenant: bool = False, by: Actor
    ) -> WebhookEndpoint:
        """Create an endpoint, and return it with its id, whatever that was.

        Args:
            sealed: its secret, encrypted.
            make_tenant: whether a tenant that there is not yet is made, in the same transaction.

        Raises:
            ResourceNotFound: there is no such tenant, and `make_tenant` is not set.
            FailedPrecondition: the tenant has MAX_ENDPOINTS.
        """
        tenant = endpoint.tenant
        async with self._database.changing(by) as change:
            if not await tenant_exists(change.connection, tenant):
                if not make_tenant:
                    raise ResourceNotFound(f"tenant {tenant} not found")
                await create_tenant(change, Tenant(tenant))
            await _check_count(change.connection, tenant)
            values = {
                "endpoint_id": (endpoint_id := new_id()),
                "tenant": tenant,
                **endpoint_values(endpoint),
                "secrets": secrets_text([SealedSecret(sealed)]),
                "create_ms": change.now_ms,
                "update_ms": change.now_ms,
            }
            await change.execute(sa.insert(webhook_endpoints).values(values))
            details = changed(WebhookEndpoint("", tenant), endpoint)
            await _record(change, "webhooks.create", tenant, endpoint_id, details)
            return await get_endpoint(change.connection, tenant, endpoint_id)

    async def get(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Return the tenant's endpoint of this id.

        Raises:
            ResourceNotFound: the tenant has none.
        """
        async with self._database.reading() as connection:
            return await get_endpoint(connection, tenant, endpoint_id)

    async def tenant_of(self, endpoint_id: str) -> str:
        """Return whose endpoint it is; empty: there is none of this id."""
        query = sa.select(webhook_endpoints.c.tenant)
        query = query.where(webhook_endpoints.c.endpoint_id == endpoint_id)
        async with self._database.reading() as connection:
            return await connection.scalar(query) or ""

    async def list(
        self, tenant: str = "", *, options: PageOptions = FIRST_PAGE
    ) -> Page[WebhookEndpoint]:
        """Return a page of endpoints, the newest first; of all tenants if `tenant` is empty."""
        query = sa.select(webhook_endpoints)
        if tenant:
            query = query.where(webhook_endpoints.c.tenant == tenant)
        async with self._database.reading() as connection:
            return await _ENDPOINTS.page(connection, query, options, endpoint_of)

    async def update(
        self,
        tenant: str,
        endpoint_id: str,
        edit: Callable[[WebhookEndpoint], WebhookEndpoint],
        *,
        by: Actor,
    ) -> WebhookEndpoint:
        """Replace an endpoint by what `edit` makes of it, but for its tenant and secrets. What
        waits for one that becomes disabled is given up.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        async with self._database.changing(by) as change:
            before = await get_endpoint(change.connection, tenant, endpoint_id)
            after = edit(before)
            await _set(change, endpoint_id, endpoint_values(after))
            if after.disabled:
                await give_up_pending(change.connection, endpoint_id, after.disabled)
            await _record(change, "webhooks.update", tenant, endpoint_id, changed(before, after))
            return await get_endpoint(change.connection, tenant, endpoint_id)

    async def rotate(
        self, tenant: str, endpoint_id: str, sealed: str, *, old_ends: datetime, by: Actor
    ) -> WebhookEndpoint:
        """Give an endpoint a new secret. The one before it goes on until `old_ends`; one that is
        older still ends now, for an endpoint has at most two.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        async with self._database.changing(by) as change:
            newest = (await get_endpoint(change.connection, tenant, endpoint_id)).secrets[0]
            secrets = [SealedSecret(sealed)]
            if old_ends > change.now:
                secrets.append(replace(newest, expire_time=old_ends))
            await _set(change, endpoint_id, {"secrets": secrets_text(secrets)})
            details = {"old_ends": old_ends.isoformat(timespec="seconds")}
            await _record(change, "webhooks.rotate", tenant, endpoint_id, details)
            return await get_endpoint(change.connection, tenant, endpoint_id)

    async def delete(self, tenant: str, endpoint_id: str, *, by: Actor) -> None:
        """Delete an endpoint with its deliveries.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        async with self._database.changing(by) as change:
            await get_endpoint(change.connection, tenant, endpoint_id)
            for table in (webhook_deliveries, webhook_endpoints):
                of_endpoint = table.c.endpoint_id == endpoint_id
                await change.execute(sa.delete(table).where(of_endpoint))
            await _record(change, "webhooks.delete", tenant, endpoint_id, {})

    async def seal_again(self, sealed_again: Callable[[str], str]) -> int:
        """Replace each secret by what `sealed_again` returns for it, and return how many differ."""
        count = 0
        async with self._database.writing() as connection:
            columns = webhook_endpoints.c.endpoint_id, webhook_endpoints.c.secrets
            for row in (await connection.execute(sa.select(*columns))).all():
                before = secrets_of(row.secrets)
                after = [replace(each, sealed=sealed_again(each.sealed)) for each in before]
                different = sum(a != b for a, b in zip(after, before, strict=True))
                if different:
                    await connection.execute(
                        sa.update(webhook_endpoints)
                        .where(webhook_endpoints.c.endpoint_id == row.endpoint_id)
                        .values(secrets=secrets_text(after))
                    )
                count += different
        return count


async def get_endpoint(
    connection: AsyncConnection, tenant: str, endpoint_id: str
) -> WebhookEndpoint:
    is_endpoint = sa.and_(
        webhook_endpoints.c.tenant == tenant, webhook_endpoints.c.endpoint_id == endpoint_id
    )
    query = sa.select(webhook_endpoints).where(is_endpoint)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"webhook endpoint {endpoint_id} not found")
    return endpoint_of(row)


async def disable_endpoint(change: Change, tenant: str, endpoint_id: str, reason: str) -> None:
    """Disable an endpoint as a part of a change, and give up what waits for it."""
    await _set(change, endpoint_id, {"disabled": reason})
    await give_up_pending(change.connection, endpoint_id, reason)
    await _record(change, "webhooks.disable", tenant, endpoint_id, {"why": reason})


async def give_up_pending(connection: AsyncConnection, endpoint_id: str, reason: str) -> None:
    """Make all that waits for an endpoint dead letters."""
    waits = sa.and_(
        webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.next_ms.is_not(None)
    )
    values = {"next_ms": None, "last_error": reason}
    await connection.execute(sa.update(webhook_deliveries).where(waits).values(values))


async def _set(change: Change, endpoint_id: str, values: dict[str, Any]) -> None:
    is_endpoint = webhook_endpoints.c.endpoint_id == endpoint_id
    values = {**values, "update_ms": change.now_ms}
    await change.execute(sa.update(webhook_endpoints).where(is_endpoint).values(values))


async def _check_count(connection: AsyncConnection, tenant: str) -> None:
    of_tenant = webhook_endpoints.c.tenant == tenant
    counted = sa.select(sa.func.count()).select_from(webhook_endpoints).where(of_tenant)
    if (await connection.scalar(counted) or 0) >= MAX_ENDPOINTS:
        raise FailedPrecondition(
            f"tenant {tenant} has {MAX_ENDPOINTS} webhook endpoints, the most: delete one first"
        )


async def _record(
    change: Change, action: str, tenant: str, endpoint_id: str, details: dict[str, Any]
) -> None:
    name = f"tenants/{tenant}/webhooks/{endpoint_id}"
    await change.record(action, name, tenant=tenant, details=details)
