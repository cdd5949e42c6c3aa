"""What leaderships have counted. What they had counted before is not compared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0012"
down_revision = "0011"


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), primary_key=key, nullable=False, autoincrement=False)


def upgrade() -> None:
    with op.batch_alter_table("usage") as table:
        table.add_column(
            sa.Column("leadership", sa.BigInteger(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("usage_position") as table:
        table.add_column(
            sa.Column("is_older", sa.Boolean(), nullable=False, server_default=sa.true())
        )
    op.create_table(
        "usage_leaderships",
        _number("leadership", key=True),
        sa.Column("stream", String(), nullable=False),
        sa.Column("model", String(), nullable=False),
        _number("epoch"),
        _number("first_ms"),
        sa.UniqueConstraint("stream", "model", "epoch", name="uq_usage_leaderships_stream"),
    )
    op.create_table(
        "usage_settled",
        _number("leadership", key=True),
        sa.Column("tenant", String(), primary_key=True, nullable=False),
        *(_number(name) for name in ("requests", "input_tokens", "output_tokens")),
        *(_number(name) for name in ("older_requests", "older_input", "older_output")),
        _number("time_ms"),
    )
    op.create_table(
        "usage_repeated",
        _number("leadership", key=True),
        sa.Column("source", String(), primary_key=True, nullable=False),
        _number("sequence", key=True),
        sa.Column("tenant", String(), nullable=False),
        _number("input_tokens"),
        _number("output_tokens"),
    )
