"""Tenants and their plans in the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.subjects import KEYS_TABLE, SESSIONS_TABLE, TENANTS_TABLE
from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace_control.base.names import checked_name
from headrace_control.base.records import Actor, Page, Plan, Tenant
from headrace_control.store.batches.store import delete_batches_of
from headrace_control.store.billing.accounts import (
    end_account,
    find_account,
    open_account,
    update_account,
)
from headrace_control.store.billing.statements import is_billed
from headrace_control.store.billing.usage_lines import last_recording
from headrace_control.store.changes import changed
from headrace_control.store.database.file_tables import files
from headrace_control.store.database.pages import FIRST_PAGE, Listing, PageOptions
from headrace_control.store.database.records import (
    plan_of,
    plan_values,
    tenant_of,
    tenant_values,
)
from headrace_control.store.database.tables import (
    invitations,
    keys,
    members,
    plans,
    sessions,
    tenants,
)
from headrace_control.store.database.transactions import Change, Database
from headrace_control.store.webhooks.events import delete_webhooks

_TENANTS = Listing("tenants", (tenants.c.tenant_id,))
_PLANS = Listing("plans", (plans.c.plan_id,))


class Tenants:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: Tenant, *, by: Actor) -> Tenant:
        """Create a tenant, and return it with its times.

        Raises:
            InvalidRequest: its name is not a name.
            ResourceExists: there is one of this name.
            FailedPrecondition: there is no such plan.
        """
        async with self._database.changing(by) as change:
            return await create_tenant(change, tenant)

    async def ensure(self, tenant_id: str, *, by: Actor) -> None:
        """Create a tenant of this name if there is none."""
        async with self._database.changing(by) as change:
            if not await tenant_exists(change.connection, tenant_id):
                await create_tenant(change, Tenant(tenant_id))

    async def get(self, tenant_id: str) -> Tenant:
        """Return the tenant.

        Raises:
            ResourceNotFound: there is none.
        """
        async with self._database.reading() as connection:
            return await _tenant(connection, tenant_id)

    async def list(self, options: PageOptions = FIRST_PAGE) -> Page[Tenant]:
        """Return a page of all tenants, by name."""
        async with self._database.reading() as connection:
            return await _TENANTS.page(connection, sa.select(tenants), options, tenant_of)

    async def update(
        self, tenant_id: str, edit: Callable[[Tenant], Tenant], *, by: Actor
    ) -> Tenant:
        """Replace a tenant by what `edit` makes of it; no other change comes between.

        Args:
            edit: called in the transaction; an error that it raises changes nothing. Its name and
                its times stay whatever it returns.

        Raises:
            ResourceNotFound: there is none.
            FailedPrecondition: there is no such plan, or its currency would change though it has
                usage.
        """
        async with self._database.changing(by) as change:
            before = await _tenant(change.connection, tenant_id)
            after = edit(before)
            await _check_plan(change.connection, after)
            if after.currency != before.currency:
                await _check_unbilled(change, tenant_id)
            values = {**tenant_values(after), "update_ms": change.now_ms}
            await change.execute(
                sa.update(tenants).where(tenants.c.tenant_id == tenant_id).values(values)
            )
            await update_account(change, after)
            resource = f"tenants/{tenant_id}"
            details = changed(before, after)
            await change.record("tenants.update", resource, tenant=tenant_id, details=details)
            await change.publish(TENANTS_TABLE, [tenant_id])
            return await _tenant(change.connection, tenant_id)

    async def delete(self, tenant_id: str, *, force: bool = False, by: Actor) -> None:
        """Delete a tenant with its keys, memberships, invitations and sessions.

        Raises:
            ResourceNotFound: there is none.
            FailedPrecondition: it has keys that are not revoked, and `force` is not set.
        """
        async with self._database.changing(by) as change:
            await _tenant(change.connection, tenant_id)
            live = sa.and_(keys.c.tenant == tenant_id, keys.c.revoke_ms.is_(None))
            found = (await change.execute(sa.select(keys.c.key_id).where(live))).scalars().all()
            if found and not force:
                raise FailedPrecondition(
                    f"tenant {tenant_id} has {len(found)} keys that are not revoked: revoke them,"
                    " or delete it with force"
                )
            digests = await _delete_all_of(change, tenant_id)
            await change.execute(sa.delete(tenants).where(tenants.c.tenant_id == tenant_id))
            await end_account(change, tenant_id)
            await change.record(
                "tenants.delete",
                f"tenants/{tenant_id}",
                tenant=tenant_id,
                details={"keys": len(found), "sessions": len(digests)},
            )
            await change.publish(SESSIONS_TABLE, digests)
            await change.publish(KEYS_TABLE, found)
            await change.publish(TENANTS_TABLE, [tenant_id])


class Plans:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, plan: Plan, *, by: Actor) -> Plan:
        """Create a plan, and return it with its times.

        Raises:
            InvalidRequest: its name is not a name.
            ResourceExists: there is one of this name.
        """
        checked_name(plan.plan_id, field="plan_id")
        async with self._database.changing(by) as change:
            if await change.connection.scalar(
                sa.select(plans.c.plan_id).where(plans.c.plan_id == plan.plan_id)
            ):
                raise ResourceExists(f"plan {plan.plan_id} exists")
            times = {"create_ms": change.now_ms, "update_ms": change.now_ms}
            values = {"plan_id": plan.plan_id, **plan_values(plan), **times}
            await change.execute(sa.insert(plans).values(values))
            details = changed(Plan(plan.plan_id), plan)
            await change.record("plans.create", f"plans/{plan.plan_id}", details=details)
            return await _plan(change.connection, plan.plan_id)

    async def get(self, plan_id: str) -> Plan:
        """Return the plan.

        Raises:
            ResourceNotFound: there is none.
        """
        async with self._database.reading() as connection:
            return await _plan(connection, plan_id)

    async def list(self, options: PageOptions = FIRST_PAGE) -> Page[Plan]:
        """Return a page of all plans, by name."""
        async with self._database.reading() as connection:
            return await _PLANS.page(connection, sa.select(plans), options, plan_of)

    async def update(self, plan_id: str, edit: Callable[[Plan], Plan], *, by: Actor) -> Plan:
        """Replace a plan by what `edit` makes of it; its tenants have the new limits at once.

        Raises:
            ResourceNotFound: there is none.
        """
        async with self._database.changing(by) as change:
            before = await _plan(change.connection, plan_id)
            after = edit(before)
            values = {**plan_values(after), "update_ms": change.now_ms}
            await change.execute(sa.update(plans).where(plans.c.plan_id == plan_id).values(values))
            details = changed(before, after)
            await change.record("plans.update", f"plans/{plan_id}", details=details)
            await change.publish(TENANTS_TABLE, await _tenants_of(change.connection, plan_id))
            return await _plan(change.connection, plan_id)

    async def delete(self, plan_id: str, *, by: Actor) -> None:
        """Delete a plan.

        Raises:
            ResourceNotFound: there is none.
            FailedPrecondition: a tenant has it.
        """
        async with self._database.changing(by) as change:
            await _plan(change.connection, plan_id)
            if used_by := await _tenants_of(change.connection, plan_id):
                raise FailedPrecondition(
                    f"plan {plan_id} is that of {len(used_by)} tenants, {used_by[0]} among them:"
                    " give them another one first"
                )
            await change.execute(sa.delete(plans).where(plans.c.plan_id == plan_id))
            await change.record("plans.delete", f"plans/{plan_id}")


async def create_tenant(change: Change, tenant: Tenant) -> Tenant:
    """Create a tenant as a part of a change."""
    tenant_id = checked_name(tenant.tenant_id, field="tenant_id")
    if await tenant_exists(change.connection, tenant_id):
        raise ResourceExists(f"tenant {tenant_id} exists")
    await _check_plan(change.connection, tenant)
    times = {"create_ms": change.now_ms, "update_ms": change.now_ms}
    values = {"tenant_id": tenant_id, **tenant_values(tenant), **times}
    await change.execute(sa.insert(tenants).values(values))
    await open_account(change, tenant)
    details = changed(Tenant(tenant_id), tenant)
    await change.record("tenants.create", f"tenants/{tenant_id}", tenant=tenant_id, details=details)
    await change.publish(TENANTS_TABLE, [tenant_id])
    return replace(tenant, create_time=change.now, update_time=change.now)


async def tenant_exists(connection: AsyncConnection, tenant_id: str) -> bool:
    query = sa.select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id)
    return await connection.scalar(query) is not None


async def _tenant(connection: AsyncConnection, tenant_id: str) -> Tenant:
    query = sa.select(tenants).where(tenants.c.tenant_id == tenant_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"tenant {tenant_id} not found")
    return tenant_of(row)


async def _plan(connection: AsyncConnection, plan_id: str) -> Plan:
    query = sa.select(plans).where(plans.c.plan_id == plan_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"plan {plan_id} not found")
    return plan_of(row)


async def _check_plan(connection: AsyncConnection, tenant: Tenant) -> None:
    query = sa.select(plans.c.plan_id).where(plans.c.plan_id == tenant.plan)
    if tenant.plan and await connection.scalar(query) is None:
        raise FailedPrecondition(f"plan {tenant.plan} not found: create it first", field="plan")


async def _check_unbilled(change: Change, tenant_id: str) -> None:
    # Why locked: no row in the old currency comes before this is committed.
    await last_recording(change.connection, lock=True)
    account = await find_account(change.connection, tenant_id)
    if await is_billed(change.connection, account):
        raise FailedPrecondition(
            f"tenant {tenant_id} has usage or statements in {account.currency}: its currency cannot"
            " change any more; create another tenant",
            field="tenant.currency",
        )


async def _tenants_of(connection: AsyncConnection, plan_id: str) -> list[str]:
    query = sa.select(tenants.c.tenant_id).where(tenants.c.plan == plan_id)
    return list((await connection.execute(query.order_by(tenants.c.tenant_id))).scalars())


async def _delete_all_of(change: Change, tenant_id: str) -> list[str]:
    """Delete what refers to a tenant; return the digests of its sessions."""
    query = sa.select(sessions.c.digest).where(sessions.c.tenant == tenant_id)
    digests = list((await change.execute(query)).scalars())
    await delete_webhooks(change.connection, tenant_id)
    await delete_batches_of(change.connection, tenant_id)
    # The bytes of its files are then those of none, and control deletes them.
    for table in (files, sessions, invitations, keys, members):
        await change.execute(sa.delete(table).where(table.c.tenant == tenant_id))
    return digests
