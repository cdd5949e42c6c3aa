"""Statements, corrections, and the accounts of tenants that they are of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String
from headrace_control.base.names import new_id

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    create_accounts()
    create_statements()
    create_corrections()
    number_recordings()


def create_accounts() -> None:
    accounts = op.create_table(
        "accounts",
        sa.Column("account_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("time_zone", String(), nullable=False),
        sa.Column("currency", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("delete_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name="pk_accounts"),
    )
    with op.batch_alter_table("accounts") as table:
        table.create_index("ix_accounts_tenant", ["tenant"])
    query = sa.text("SELECT tenant_id AS tenant, time_zone, currency, create_ms FROM tenants")
    found = op.get_bind().execute(query).mappings().all()
    if found:
        op.bulk_insert(accounts, [{**row, "account_id": new_id()} for row in found])


def create_statements() -> None:
    op.create_table(
        "statements",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_id", String(), nullable=False),
        sa.Column("month", String(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_recording", sa.BigInteger(), nullable=False),
        sa.Column("last_correction", sa.BigInteger(), nullable=False),
        sa.Column("content", String(), nullable=False),
        sa.Column("hash", String(), nullable=False),
        sa.Column("close_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name="fk_statements_account_id"
        ),
        sa.PrimaryKeyConstraint("sequence", name="pk_statements"),
        sa.UniqueConstraint("account_id", "month", name="uq_statements_account_id"),
    )


def create_corrections() -> None:
    op.create_table(
        "corrections",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_id", String(), nullable=False),
        sa.Column("month", String(), nullable=False),
        sa.Column("amount_nanos", sa.BigInteger(), nullable=False),
        sa.Column("reason", String(), nullable=False),
        sa.Column("actor", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name="fk_corrections_account_id"
        ),
        sa.PrimaryKeyConstraint("sequence", name="pk_corrections"),
    )
    with op.batch_alter_table("corrections") as table:
        table.create_index("ix_corrections_account_id", ["account_id"])


def number_recordings() -> None:
    """Number the transactions that record usage: rows that are there are of number 0."""
    for name in ("usage", "usage_position"):
        with op.batch_alter_table(name) as table:
            table.add_column(
                sa.Column("recording", sa.BigInteger(), nullable=False, server_default="0")
            )
    with op.batch_alter_table("usage") as table:
        table.create_index("ix_usage_tenant_recording", ["tenant", "recording"])
