"""Prices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("price_id", String(), nullable=False),
        sa.Column("model", String(), nullable=False),
        sa.Column("currency", String(), nullable=False),
        sa.Column("valid_from_ms", sa.BigInteger(), nullable=False),
        sa.Column("input_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_nanos", sa.BigInteger(), nullable=False),
        sa.Column("output_nanos", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("price_id", name="pk_prices"),
        sa.UniqueConstraint("model", "currency", "valid_from_ms", name="uq_prices_model"),
    )
