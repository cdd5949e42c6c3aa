"""The tables of files, whose bytes are in the broker's object store, and of batches, which read and
make files."""

from __future__ import annotations

import sqlalchemy as sa

from headrace.database.columns import String, flag, text, time
from headrace_control.store.database.metadata import METADATA

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

batches = sa.Table(
    "batches",
    METADATA,
    text("batch_id", primary_key=True),
    text("tenant", sa.ForeignKey("tenants.tenant_id")),
    text("status", index=True),
    text("endpoint"),
    text("input_file_id"),
    text("completion_window"),
    text("metadata"),
    sa.Column("output_expires_s", sa.Integer, nullable=True),
    text("idempotency_key", nullable=True),
    # {"key_id", "person", "scopes", "models"}
    text("owner"),
    time("create_ms"),
    time("expire_ms"),
    # {status: milliseconds}
    text("times"),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("fed_line", sa.Integer, nullable=False),
    text("outcome"),
    text("output_file_id"),
    text("error_file_id"),
    flag("has_output"),
    flag("has_errors"),
    # [{"code", "message", "param", "line"}]
    text("errors"),
    # Of its rows that are finished, until its files are there.
    sa.Column("output_bytes", sa.BigInteger, nullable=False, server_default="0"),
    # {"input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"}
    text("usage"),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index(None, "tenant", "create_ms", "batch_id"),
)

# Rows that are finished, until their batch is.
batch_rows = sa.Table(
    "batch_rows",
    METADATA,
    text("batch_id", sa.ForeignKey("batches.batch_id"), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    flag("succeeded"),
    text("text"),
)
