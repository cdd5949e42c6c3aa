"""A line of a batch is billed once. Rows that are there stay as they are billed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("usage") as table:
        table.add_column(
            sa.Column("billed", sa.Boolean(), nullable=False, server_default=sa.true())
        )
        table.add_column(
            sa.Column("billed_part", sa.BigInteger(), nullable=False, server_default="-1")
        )
    is_billed_line = sa.text("billed_part >= 0")
    op.create_index(
        "uq_usage_billed_line",
        "usage",
        ["batch_id", "batch_line", "billed_part"],
        unique=True,
        sqlite_where=is_billed_line,
        postgresql_where=is_billed_line,
    )
