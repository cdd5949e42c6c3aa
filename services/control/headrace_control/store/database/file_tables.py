"""The table of files, whose bytes are in the broker's object store."""

from __future__ import annotations

import sqlalchemy as sa

from headrace_control.store.database.columns import METADATA, String

files = sa.Table(
    "files",
    METADATA,
    # Also the name of its bytes.
    sa.Column("file_id", String, primary_key=True, nullable=False),
    sa.Column("tenant", String, sa.ForeignKey("tenants.tenant_id"), nullable=False),
    sa.Column("purpose", String, nullable=False),
    sa.Column("filename", String, nullable=False),
    # Reserved, while it is uploading.
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", String, nullable=False),
    sa.Column("status", String, nullable=False, index=True),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=True, index=True),
    sa.Index(None, "tenant", "create_ms", "file_id"),
)
