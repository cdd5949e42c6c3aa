"""Months are those of accounts: a tenant's name may have been another's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

LAST_ACCOUNT = """
UPDATE usage_month SET account_id = COALESCE((
    SELECT accounts.account_id FROM accounts WHERE accounts.tenant = usage_month.account_id
    ORDER BY accounts.create_ms DESC, accounts.account_id DESC LIMIT 1
), account_id)
"""


def upgrade() -> None:
    with op.batch_alter_table("usage_month") as table:
        table.alter_column("tenant", new_column_name="account_id")
    op.execute(sa.text(LAST_ACCOUNT))
