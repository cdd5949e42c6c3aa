"""Files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("file_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("purpose", String(), nullable=False),
        sa.Column("filename", String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", String(), nullable=False),
        sa.Column("status", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_files_tenant"),
        sa.PrimaryKeyConstraint("file_id", name="pk_files"),
    )
    with op.batch_alter_table("files") as table:
        table.create_index("ix_files_expire_ms", ["expire_ms"])
        table.create_index("ix_files_status", ["status"])
        table.create_index("ix_files_tenant_create_ms_file_id", ["tenant", "create_ms", "file_id"])
