"""The tables of webhooks: endpoints, events, and the delivery of each event to each endpoint."""

from __future__ import annotations

import sqlalchemy as sa

from headrace.database.columns import String
from headrace_control.store.database.metadata import METADATA

webhook_endpoints = sa.Table(
    "webhook_endpoints",
    METADATA,
    sa.Column("endpoint_id", String, primary_key=True, nullable=False),
    sa.Column("tenant", String, sa.ForeignKey("tenants.tenant_id"), nullable=False, index=True),
    sa.Column("url", String, nullable=False),
    sa.Column("display_name", String, nullable=False),
    # A list of types; empty: all.
    sa.Column("event_types", String, nullable=False),
    sa.Column("labels", String, nullable=False),
    # [{"sealed": encrypted, "expire_ms"}], the newest first.
    sa.Column("secrets", String, nullable=False),
    # Why it is disabled; empty: it is enabled.
    sa.Column("disabled", String, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
)

webhook_events = sa.Table(
    "webhook_events",
    METADATA,
    sa.Column("event_id", String, primary_key=True, nullable=False),
    sa.Column("tenant", String, sa.ForeignKey("tenants.tenant_id"), nullable=False),
    sa.Column("type", String, nullable=False),
    sa.Column("data_id", String, nullable=False),
    # Of what happened: it is one event however often it is added.
    sa.Column("unique_key", String, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False, index=True),
    sa.UniqueConstraint("tenant", "unique_key"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    METADATA,
    sa.Column(
        "endpoint_id",
        String,
        sa.ForeignKey("webhook_endpoints.endpoint_id"),
        primary_key=True,
        nullable=False,
    ),
    sa.Column(
        "event_id",
        String,
        sa.ForeignKey("webhook_events.event_id"),
        primary_key=True,
        nullable=False,
        index=True,
    ),
    # When it is sent next; null: never, for it is delivered or dead.
    sa.Column("next_ms", sa.BigInteger, nullable=True),
    # Null until a 2xx.
    sa.Column("deliver_ms", sa.BigInteger, nullable=True),
    # How often it was sent since it was added or resent.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_attempt_ms", sa.BigInteger, nullable=True),
    # HTTP status of the last attempt; 0: none, see last_error.
    sa.Column("last_status", sa.Integer, nullable=False),
    sa.Column("last_error", String, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Index(None, "endpoint_id", "next_ms"),
    sa.Index(None, "next_ms"),
)
