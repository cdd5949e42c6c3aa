"""Accounts in the database: tenants, as they are billed, which stay when a tenant is deleted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import ResourceNotFound
from headrace_control.base.accounts.statement import Account
from headrace_control.base.names import new_id
from headrace_control.base.published_rows import EPOCH, time_of
from headrace_control.base.records import Tenant
from headrace_control.store.database.billing_tables import accounts
from headrace_control.store.database.published import in_parts
from headrace_control.store.database.transactions import Change

_AGE = accounts.c.create_ms, accounts.c.account_id


async def open_account(change: Change, tenant: Tenant) -> None:
    """Open the account of a new tenant, as a part of the change that creates it."""
    values = {"account_id": new_id(), "tenant": tenant.tenant_id, "create_ms": change.now_ms}
    terms = {"time_zone": tenant.time_zone, "currency": tenant.currency}
    await change.execute(sa.insert(accounts).values(**values, **terms))


async def update_account(change: Change, tenant: Tenant) -> None:
    """Give the account what its tenant has now."""
    terms = {"time_zone": tenant.time_zone, "currency": tenant.currency}
    await change.execute(sa.update(accounts).where(_is_live(tenant.tenant_id)).values(terms))


async def end_account(change: Change, tenant_id: str) -> None:
    """Note that the account's tenant is deleted."""
    ended = sa.update(accounts).where(_is_live(tenant_id)).values(delete_ms=change.now_ms)
    await change.execute(ended)


async def find_account(
    connection: AsyncConnection, tenant_id: str, account_id: str = ""
) -> Account:
    """Return an account of a tenant's name.

    Args:
        account_id: which one; empty: that of the tenant, or, if it is deleted, of the last one that
            had this name.

    Raises:
        ResourceNotFound: there is none.
    """
    query = sa.select(accounts).where(accounts.c.tenant == tenant_id)
    if account_id:
        query = query.where(accounts.c.account_id == account_id)
    query = query.order_by(accounts.c.create_ms.desc(), accounts.c.account_id.desc()).limit(1)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        of = f"account {account_id} of tenant {tenant_id}" if account_id else f"tenant {tenant_id}"
        raise ResourceNotFound(f"{of} not found")
    return account_of(row)


async def all_accounts(connection: AsyncConnection) -> tuple[Account, ...]:
    query = sa.select(accounts).order_by(accounts.c.tenant, *_AGE)
    return tuple(account_of(row) for row in await connection.execute(query))


async def accounts_of(
    connection: AsyncConnection, tenants: Collection[str]
) -> dict[str, list[Account]]:
    """Return all accounts of these names, the oldest first."""
    found: dict[str, list[Account]] = {}
    for some in in_parts(sorted(tenants)):
        query = sa.select(accounts).where(accounts.c.tenant.in_(some))
        for row in await connection.execute(query.order_by(*_AGE)):
            found.setdefault(row.tenant, []).append(account_of(row))
    return found


async def own_since_ms(connection: AsyncConnection, tenant_id: str) -> int:
    """Return from when on usage under a tenant's name is of the tenant that has it now, in Unix
    milliseconds; 0: no other one has had it."""
    query = sa.select(accounts.c.create_ms).where(accounts.c.tenant == tenant_id)
    query = query.order_by(accounts.c.create_ms.desc()).limit(2)
    found = (await connection.execute(query)).scalars().all()
    return found[0] if len(found) > 1 else 0


async def lifetime(connection: AsyncConnection, account: Account) -> tuple[int, int]:
    """Return from when on, and until when, requests of this tenant's name are of this account, in
    Unix milliseconds: by the account that was opened last before a request arrived.
    """
    query = sa.select(accounts.c.account_id, accounts.c.create_ms)
    query = query.where(accounts.c.tenant == account.tenant).order_by(*_AGE)
    found = (await connection.execute(query)).all()
    at = [row.account_id for row in found].index(account.account_id)
    begins = found[at].create_ms if at else 0
    return begins, found[at + 1].create_ms if at + 1 < len(found) else 2**62


def account_of(row: sa.Row[Any]) -> Account:
    return Account(
        account_id=row.account_id,
        tenant=row.tenant,
        time_zone=row.time_zone,
        currency=row.currency,
        create_time=time_of(row.create_ms) or EPOCH,
        delete_time=None if row.delete_ms is None else time_of(row.delete_ms),
    )


def _is_live(tenant_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(accounts.c.tenant == tenant_id, accounts.c.delete_ms.is_(None))
