"""Batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create_batches()
    create_batch_rows()


def create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("status", String(), nullable=False),
        sa.Column("endpoint", String(), nullable=False),
        sa.Column("input_file_id", String(), nullable=False),
        sa.Column("completion_window", String(), nullable=False),
        sa.Column("metadata", String(), nullable=False),
        sa.Column("output_expires_s", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", String(), nullable=True),
        sa.Column("owner", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("times", String(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("fed_line", sa.Integer(), nullable=False),
        sa.Column("outcome", String(), nullable=False),
        sa.Column("output_file_id", String(), nullable=False),
        sa.Column("error_file_id", String(), nullable=False),
        sa.Column("has_output", sa.Boolean(), nullable=False),
        sa.Column("has_errors", sa.Boolean(), nullable=False),
        sa.Column("errors", String(), nullable=False),
        sa.Column("usage", String(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_batches_tenant"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_batches"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_batches_tenant"),
    )
    with op.batch_alter_table("batches") as table:
        table.create_index("ix_batches_status", ["status"])
        table.create_index(
            "ix_batches_tenant_create_ms_batch_id", ["tenant", "create_ms", "batch_id"]
        )


def create_batch_rows() -> None:
    op.create_table(
        "batch_rows",
        sa.Column("batch_id", String(), nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("text", String(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], name="fk_batch_rows_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", "line", name="pk_batch_rows"),
    )
