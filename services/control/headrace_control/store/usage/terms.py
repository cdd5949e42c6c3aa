"""What tenants pay: their currency and time zone, their prices, and the budgets of a month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.statement import Account, account_at
from headrace_control.base.accounts.usage import WHOLE_TENANT, TokenPrice, Values, price_at
from headrace_control.base.records import Limits
from headrace_control.store.billing.accounts import accounts_of
from headrace_control.store.database.billing_tables import prices
from headrace_control.store.database.published import TENANTS, in_parts
from headrace_control.store.database.records import limits_of
from headrace_control.store.database.tables import keys, tenants


@dataclass(frozen=True, slots=True)
class TenantTerms:
    currency: str = "USD"
    time_zone: str = ""
    """IANA name; empty: UTC."""
    budgets: Mapping[str, int] = field(default_factory=dict)
    """Nano-units a month, of the whole tenant as key `*` and of its keys that have one."""


USUAL = TenantTerms()
"""Of a tenant that is deleted."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of all tenants and models of some rows."""

    tenants: Mapping[str, TenantTerms]
    prices: Mapping[tuple[str, str], Sequence[TokenPrice]]
    """By model and currency, the oldest first."""
    accounts: Mapping[str, Sequence[Account]]
    """By tenant, the oldest first: a name may have been another tenant's."""

    def currency(self, values: Values) -> str:
        """Return the currency of the tenant that had this name when the request arrived."""
        found = self._account(values)
        return USUAL.currency if found is None else found.currency

    def account_id(self, values: Values) -> str:
        """Return the account that a row is of; without any, the tenant's name."""
        found = self._account(values)
        return values["tenant"] if found is None else found.account_id

    def is_of_the_deleted(self, values: Values) -> bool:
        """Return whether a row is of a tenant that is deleted: its name may be another's now."""
        found = self._account(values)
        return found is not None and found.delete_time is not None

    def _account(self, values: Values) -> Account | None:
        return account_at(self.accounts.get(values["tenant"], ()), values["arrival_ms"])

    def of(self, tenant: str) -> TenantTerms:
        return self.tenants.get(tenant, USUAL)

    def price(self, values: Values, currency: str) -> TokenPrice:
        return price_at(self.prices.get((values["model"], currency), ()), values["end_ms"])


async def terms_for(connection: AsyncConnection, rows: Sequence[Values]) -> Terms:
    """Return what the tenants of these rows pay for their models."""
    names, key_ids = ({row[column] for row in rows} for column in ("tenant", "key_id"))
    budgets = await _key_budgets(connection, key_ids - {""})
    found: dict[str, TenantTerms] = {}
    for some in in_parts(sorted(names)):
        query = TENANTS.where(tenants.c.tenant_id.in_(some))
        for row in await connection.execute(query):
            limits = Limits() if row.plan_id is None else limits_of(row.limits)
            found[row.tenant_id] = TenantTerms(
                row.currency or USUAL.currency,
                row.time_zone,
                {WHOLE_TENANT: limits.budget_nanos_per_month} | budgets.get(row.tenant_id, {}),
            )
    accounts = await accounts_of(connection, names)
    currencies = {each.currency for some in accounts.values() for each in some} | {USUAL.currency}
    models = {row["model"] for row in rows}
    return Terms(found, await _prices(connection, models, currencies), accounts)


async def _prices(
    connection: AsyncConnection, models: Iterable[str], currencies: Iterable[str]
) -> dict[tuple[str, str], list[TokenPrice]]:
    found: dict[tuple[str, str], list[TokenPrice]] = {}
    for some in in_parts(sorted(models)):
        query = sa.select(prices).order_by(prices.c.valid_from_ms)
        query = query.where(prices.c.model.in_(some), prices.c.currency.in_(sorted(currencies)))
        for row in await connection.execute(query):
            price = TokenPrice(
                row.valid_from_ms, row.input_nanos, row.cached_input_nanos, row.output_nanos
            )
            found.setdefault((row.model, row.currency), []).append(price)
    return found


async def _key_budgets(
    connection: AsyncConnection, key_ids: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Return the budgets of keys that have one, by tenant and key."""
    found: dict[str, dict[str, int]] = {}
    for some in in_parts(sorted(key_ids)):
        query = sa.select(keys.c.tenant, keys.c.key_id, keys.c.limits)
        for row in await connection.execute(query.where(keys.c.key_id.in_(some))):
            if budget := limits_of(row.limits).budget_nanos_per_month:
                found.setdefault(row.tenant, {})[row.key_id] = budget
    return found
