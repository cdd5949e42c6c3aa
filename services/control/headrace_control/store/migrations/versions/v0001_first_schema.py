"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_access_reports()
    create_audit_events()
    create_audit_head()
    create_facts()
    create_outbox()
    create_people()
    create_plans()
    create_tenants()
    create_invitations()
    create_keys()
    create_members()
    create_sessions()
    first = sa.text("INSERT INTO audit_head (id, sequence, hash) VALUES (1, 0, :hash)")
    op.execute(first.bindparams(hash="0" * 64))


def create_access_reports() -> None:
    op.create_table(
        "access_reports",
        sa.Column("gateway_id", String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway_id", name="pk_access_reports"),
    )


def create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("action", String(), nullable=False),
        sa.Column("resource", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("actor", String(), nullable=False),
        sa.Column("client", String(), nullable=False),
        sa.Column("details", String(), nullable=False),
        sa.Column("previous_hash", String(), nullable=False),
        sa.Column("hash", String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_events"),
    )
    with op.batch_alter_table("audit_events") as table:
        table.create_index("ix_audit_events_action_sequence", ["action", "sequence"])
        table.create_index("ix_audit_events_tenant_sequence", ["tenant", "sequence"])


def create_audit_head() -> None:
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )


def create_facts() -> None:
    op.create_table(
        "facts",
        sa.Column("name", String(), nullable=False),
        sa.Column("value", String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_facts"),
    )


def create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("table_name", String(), nullable=False),
        sa.Column("row_key", String(), nullable=False),
        sa.Column("row", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name="pk_outbox"),
        sqlite_autoincrement=True,
    )


def create_people() -> None:
    op.create_table(
        "people",
        sa.Column("person_id", String(), nullable=False),
        sa.Column("email", String(), nullable=False),
        sa.Column("email_key", String(), nullable=True),
        sa.Column("display_name", String(), nullable=False),
        sa.Column("issuer", String(), nullable=True),
        sa.Column("subject", String(), nullable=True),
        sa.Column("deactivated", sa.Boolean(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_sign_in_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("person_id", name="pk_people"),
        sa.UniqueConstraint("email_key", name="uq_people_email_key"),
        sa.UniqueConstraint("issuer", "subject", name="uq_people_issuer"),
    )


def create_plans() -> None:
    op.create_table(
        "plans",
        sa.Column("plan_id", String(), nullable=False),
        sa.Column("display_name", String(), nullable=False),
        sa.Column("limits", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", name="pk_plans"),
    )


def create_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant_id", String(), nullable=False),
        sa.Column("display_name", String(), nullable=False),
        sa.Column("plan", String(), nullable=True),
        sa.Column("default_priority", sa.Integer(), nullable=False),
        sa.Column("highest_priority", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("networks", String(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["plan"], ["plans.plan_id"], name="fk_tenants_plan"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
    )
    with op.batch_alter_table("tenants") as table:
        table.create_index("ix_tenants_plan", ["plan"])


def create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("invitation_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("email", String(), nullable=False),
        sa.Column("role", String(), nullable=False),
        sa.Column("token_hash", String(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_invitations_tenant"),
        sa.PrimaryKeyConstraint("invitation_id", name="pk_invitations"),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
    )
    with op.batch_alter_table("invitations") as table:
        table.create_index("ix_invitations_tenant", ["tenant"])


def create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("key_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("person", String(), nullable=True),
        sa.Column("display_name", String(), nullable=False),
        sa.Column("scopes", String(), nullable=False),
        sa.Column("models", String(), nullable=False),
        sa.Column("networks", String(), nullable=False),
        sa.Column("limits", String(), nullable=False),
        sa.Column("labels", String(), nullable=False),
        sa.Column("redacted", String(), nullable=False),
        sa.Column("digests", String(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=True),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoke_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_use_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_use_client", String(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.person_id"], name="fk_keys_person"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_keys_tenant"),
        sa.PrimaryKeyConstraint("key_id", name="pk_keys"),
    )
    with op.batch_alter_table("keys") as table:
        table.create_index("ix_keys_person", ["person"])
        table.create_index("ix_keys_tenant_key_id", ["tenant", "key_id"])


def create_members() -> None:
    op.create_table(
        "members",
        sa.Column("tenant", String(), nullable=False),
        sa.Column("person", String(), nullable=False),
        sa.Column("role", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.person_id"], name="fk_members_person"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_members_tenant"),
        sa.PrimaryKeyConstraint("tenant", "person", name="pk_members"),
    )
    with op.batch_alter_table("members") as table:
        table.create_index("ix_members_person", ["person"])


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("session_id", String(), nullable=False),
        sa.Column("digest", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("person", String(), nullable=True),
        sa.Column("key_id", String(), nullable=True),
        sa.Column("opened_by", String(), nullable=False),
        sa.Column("client", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.key_id"], name="fk_sessions_key_id"),
        sa.ForeignKeyConstraint(["person"], ["people.person_id"], name="fk_sessions_person"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant_id"], name="fk_sessions_tenant"),
        sa.PrimaryKeyConstraint("session_id", name="pk_sessions"),
        sa.UniqueConstraint("digest", name="uq_sessions_digest"),
    )
    with op.batch_alter_table("sessions") as table:
        table.create_index("ix_sessions_expire_ms", ["expire_ms"])
        table.create_index("ix_sessions_key_id", ["key_id"])
        table.create_index("ix_sessions_person", ["person"])
        table.create_index("ix_sessions_tenant", ["tenant"])
