"""What closed statements cover, and the corrections that none of them has yet."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_control.base.accounts.statement import Account, Line, correction_line
from headrace_control.store.billing.usage_lines import Closed
from headrace_control.store.database.billing_tables import corrections, statements


async def closed_of(connection: AsyncConnection, account: Account) -> Sequence[Closed]:
    """Return the closed statements of an account, the oldest first."""
    columns = (statements.c[name] for name in ("sequence", "month", "end_ms"))
    covered = statements.c.last_recording, statements.c.last_correction
    query = sa.select(*columns, *covered).where(statements.c.account_id == account.account_id)
    rows = await connection.execute(query.order_by(statements.c.sequence))
    return [
        Closed(row.sequence, row.month, row.end_ms, row.last_recording, row.last_correction)
        for row in rows
    ]


async def corrections_since(
    connection: AsyncConnection, account: Account, last: Closed
) -> tuple[int, list[Line]]:
    """Return the last correction, and the lines of those that no statement has yet."""
    query = sa.select(corrections).where(
        corrections.c.account_id == account.account_id,
        corrections.c.sequence > last.last_correction,
    )
    rows = (await connection.execute(query.order_by(corrections.c.sequence))).all()
    lines = [
        correction_line(
            account.currency, month=row.month, nanos=row.amount_nanos, reason=row.reason
        )
        for row in rows
    ]
    return rows[-1].sequence if rows else last.last_correction, lines
