"""Usage: rows, their sums, and the position of the stream."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    create_usage()
    create_usage_hour()
    create_usage_month()
    create_usage_position()
    create_usage_unreadable()
    create_usage_gaps()


def create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("source", String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("request_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("key_id", String(), nullable=False),
        sa.Column("person", String(), nullable=False),
        sa.Column("model", String(), nullable=False),
        sa.Column("version", String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("arrival_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("queue_ms", sa.BigInteger(), nullable=False),
        sa.Column("first_token_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", String(), nullable=False),
        sa.Column("batch_line", sa.BigInteger(), nullable=False),
        sa.Column("cache_hit", sa.Boolean(), nullable=False),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.Column("engine", String(), nullable=False),
        sa.Column("upstream_cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("upstream_currency", String(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("currency", String(), nullable=False),
        sa.Column("input_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cached_nanos", sa.BigInteger(), nullable=False),
        sa.Column("output_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "sequence", name="pk_usage"),
    )
    with op.batch_alter_table("usage") as table:
        table.create_index("ix_usage_end_ms", ["end_ms"])
        table.create_index("ix_usage_tenant_end_ms", ["tenant", "end_ms"])


def create_usage_hour() -> None:
    op.create_table(
        "usage_hour",
        sa.Column("tenant", String(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", String(), nullable=False),
        sa.Column("key_id", String(), nullable=False),
        sa.Column("person", String(), nullable=False),
        sa.Column("batch", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("currency", String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("input_cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cached_cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("output_cost_nanos", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant",
            "hour_ms",
            "model",
            "key_id",
            "person",
            "batch",
            "kind",
            "currency",
            name="pk_usage_hour",
        ),
    )
    with op.batch_alter_table("usage_hour") as table:
        table.create_index("ix_usage_hour_hour_ms", ["hour_ms"])


def create_usage_month() -> None:
    op.create_table(
        "usage_month",
        sa.Column("tenant", String(), nullable=False),
        sa.Column("month", String(), nullable=False),
        sa.Column("key_id", String(), nullable=False),
        sa.Column("currency", String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("notified", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "month", "key_id", "currency", name="pk_usage_month"),
    )


def create_usage_position() -> None:
    op.create_table(
        "usage_position",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rows_since_ms", sa.BigInteger(), nullable=False),
        sa.Column("stream", String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=("pk_usage_position")),
    )


def create_usage_unreadable() -> None:
    op.create_table(
        "usage_unreadable",
        sa.Column("digest", String(), nullable=False),
        sa.Column("stream", String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("reason", String(), nullable=False),
        sa.Column("record", String(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=("pk_usage_unreadable")),
    )


def create_usage_gaps() -> None:
    op.create_table(
        "usage_gaps",
        sa.Column("stream", String(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "first", name=("pk_usage_gaps")),
    )
