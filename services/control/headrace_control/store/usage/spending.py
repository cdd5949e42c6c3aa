"""What tenants and keys have spent in a month, and the events that follow from rows: budgets of
which a part is used, and background requests that have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.usage import (
    MAX_NANOS,
    THRESHOLDS,
    WHOLE_TENANT,
    Values,
    month_of,
    reached,
)
from headrace_control.base.webhooks import (
    BUDGET_THRESHOLD_REACHED,
    RESPONSE_CANCELLED,
    RESPONSE_COMPLETED,
    RESPONSE_FAILED,
    RESPONSE_INCOMPLETE,
)
from headrace_control.store.database.billing_tables import usage_month
from headrace_control.store.database.transactions import adding
from headrace_control.store.usage.terms import Terms
from headrace_control.store.webhooks.events import add_event

_KEY = ("account_id", "month", "key_id", "currency")
_KEYS = tuple(usage_month.c[name] for name in _KEY)
_CANCELLED, _DEADLINE_EXCEEDED = 1, 4
_ENDS = {
    0: RESPONSE_COMPLETED,
    _CANCELLED: RESPONSE_CANCELLED,
    _DEADLINE_EXCEEDED: RESPONSE_INCOMPLETE,
}


async def add_spending(
    connection: AsyncConnection, rows: Sequence[Values], terms: Terms, now_ms: int
) -> None:
    """Add rows to the months of their tenants and keys, and the events that follow."""
    billed = [row for row in rows if row["billed"]]
    await add_months(connection, months_of(billed, terms))
    lasting = [row for row in rows if not terms.is_of_the_deleted(row)]
    budgets = {
        (terms.account_id(row), key_id): (row["tenant"], budget)
        for row in lasting
        for key_id in (WHOLE_TENANT, row["key_id"])
        if row["billed"] and (budget := terms.of(row["tenant"]).budgets.get(key_id))
    }
    months = {month for _, month in _spent_in(billed, terms)}
    await _notify(connection, budgets, sorted(months), now_ms)
    for row in lasting:
        if row["detached"] and not row["batch_id"]:
            kind = _ENDS.get(row["code"], RESPONSE_FAILED)
            unique = f"usage/{row['source']}/{row['sequence']}"
            await add_event(connection, row["tenant"], kind, row["request_id"], unique, now_ms)


def months_of(rows: Sequence[Values], terms: Terms) -> list[Values]:
    """Return what rows add to each month of an account and its keys, in the order of the keys."""
    sums: dict[tuple[str, ...], list[int]] = {}
    for row, month in _spent_in(rows, terms):
        for key_id in {WHOLE_TENANT, row["key_id"] or WHOLE_TENANT}:
            account = terms.account_id(row)
            found = sums.setdefault((account, month, key_id, row["currency"]), [0, 0])
            found[0] += 1
            found[1] += row["cost_nanos"]
    return [
        dict(zip(_KEY, key, strict=True))
        | {"requests": n, "cost_nanos": min(cost, MAX_NANOS), "notified": 0}
        for key, (n, cost) in sorted(sums.items())
    ]


def _spent_in(rows: Sequence[Values], terms: Terms) -> Iterator[tuple[Values, str]]:
    """Yield each row with the month that it is in by its tenant's time zone."""
    for row in rows:
        yield row, month_of(row["end_ms"], terms.of(row["tenant"]).time_zone)


async def add_months(connection: AsyncConnection, months: Sequence[Mapping[str, Any]]) -> None:
    """Add to the months; these are in the order of their keys."""
    if months:
        add = adding(connection, usage_month, _KEY, ("requests", "cost_nanos"))
        await connection.execute(add, months)


async def _notify(
    connection: AsyncConnection,
    budgets: Mapping[tuple[str, str], tuple[str, int]],
    months: Sequence[str],
    now_ms: int,
) -> None:
    """Add an event for each threshold of a budget that was passed since the last one.

    Args:
        budgets: by account and key, with their tenant.
    """
    if not budgets:
        return
    accounts, keys = ({each[i] for each in budgets} for i in (0, 1))
    query = sa.select(usage_month).where(
        usage_month.c.account_id.in_(sorted(accounts)),
        usage_month.c.month.in_(months),
        usage_month.c.key_id.in_(sorted(keys)),
    )
    for row in (await connection.execute(query.order_by(*_KEYS))).all():
        tenant, budget = budgets.get((row.account_id, row.key_id), ("", 0))
        percent = reached(row.cost_nanos, budget)
        if not budget or percent == row.notified:
            continue
        for passed in (p for p in THRESHOLDS if row.notified < p <= percent):
            of = "" if row.key_id == WHOLE_TENANT else f"keys/{row.key_id}/"
            about = f"{of}month/{row.month}-01/{passed}"
            unique = f"budget/{about}/{budget}"
            await add_event(connection, tenant, BUDGET_THRESHOLD_REACHED, about, unique, now_ms)
        # Why also downwards: of a budget that was raised, the thresholds come again.
        is_row = (column == getattr(row, column.name) for column in _KEYS)
        await connection.execute(sa.update(usage_month).where(*is_row).values(notified=percent))
