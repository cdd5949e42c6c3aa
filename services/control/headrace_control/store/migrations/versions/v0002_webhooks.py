"""Webhooks: endpoints, events and deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_webhook_endpoints()
    create_webhook_events()
    create_webhook_deliveries()


def create_webhook_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("endpoint_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("url", String(), nullable=False),
        sa.Column("display_name", String(), nullable=False),
        sa.Column("event_types", String(), nullable=False),
        sa.Column("labels", String(), nullable=False),
        sa.Column("secrets", String(), nullable=False),
        sa.Column("disabled", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.tenant_id"], name="fk_webhook_endpoints_tenant"
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name="pk_webhook_endpoints"),
    )
    with op.batch_alter_table("webhook_endpoints") as table:
        table.create_index("ix_webhook_endpoints_tenant", ["tenant"])


def create_webhook_events() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("event_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("type", String(), nullable=False),
        sa.Column("data_id", String(), nullable=False),
        sa.Column("unique_key", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_webhook_events_tenant"),
        sa.PrimaryKeyConstraint("event_id", name="pk_webhook_events"),
        sa.UniqueConstraint("tenant", "unique_key", name="uq_webhook_events_tenant"),
    )
    with op.batch_alter_table("webhook_events") as table:
        table.create_index("ix_webhook_events_create_ms", ["create_ms"])


def create_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("endpoint_id", String(), nullable=False),
        sa.Column("event_id", String(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=True),
        sa.Column("deliver_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_attempt_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=False),
        sa.Column("last_error", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.endpoint_id"],
            name="fk_webhook_deliveries_endpoint_id",
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["webhook_events.event_id"], name="fk_webhook_deliveries_event_id"
        ),
        sa.PrimaryKeyConstraint("endpoint_id", "event_id", name="pk_webhook_deliveries"),
    )
    with op.batch_alter_table("webhook_deliveries") as table:
        table.create_index("ix_webhook_deliveries_endpoint_id_next_ms", ["endpoint_id", "next_ms"])
        table.create_index("ix_webhook_deliveries_event_id", ["event_id"])
        table.create_index("ix_webhook_deliveries_next_ms", ["next_ms"])
