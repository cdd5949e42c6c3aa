"""The tables of batches. Their input and output are files."""

from __future__ import annotations

import sqlalchemy as sa

from headrace_control.store.database.tables import METADATA, String

batches = sa.Table(
    "batches",
    METADATA,
    sa.Column("batch_id", String, primary_key=True, nullable=False),
    sa.Column("tenant", String, sa.ForeignKey("tenants.tenant_id"), nullable=False),
    sa.Column("status", String, nullable=False, index=True),
    sa.Column("endpoint", String, nullable=False),
    sa.Column("input_file_id", String, nullable=False),
    sa.Column("completion_window", String, nullable=False),
    sa.Column("metadata", String, nullable=False),
    sa.Column("output_expires_s", sa.Integer, nullable=True),
    sa.Column("idempotency_key", String, nullable=True),
    # {"key_id", "person", "scopes", "models"}
    sa.Column("owner", String, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False),
    # {status: milliseconds}
    sa.Column("times", String, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("fed_line", sa.Integer, nullable=False),
    sa.Column("outcome", String, nullable=False),
    sa.Column("output_file_id", String, nullable=False),
    sa.Column("error_file_id", String, nullable=False),
    sa.Column("has_output", sa.Boolean, nullable=False),
    sa.Column("has_errors", sa.Boolean, nullable=False),
    # [{"code", "message", "param", "line"}]
    sa.Column("errors", String, nullable=False),
    # {"input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"}
    sa.Column("usage", String, nullable=False),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index(None, "tenant", "create_ms", "batch_id"),
)

# Rows that are finished, until their batch is.
batch_rows = sa.Table(
    "batch_rows",
    METADATA,
    sa.Column("batch_id", String, sa.ForeignKey("batches.batch_id"), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("succeeded", sa.Boolean, nullable=False),
    sa.Column("text", String, nullable=False),
)
