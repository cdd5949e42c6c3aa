"""The tables of the database. `migrations/` makes them; a test holds the two against each other.

Times are Unix milliseconds. Lists and maps are JSON.
"""

from __future__ import annotations

import sqlalchemy as sa

from headrace.database.columns import flag, text, time
from headrace_control.store.database.metadata import METADATA

plans = sa.Table(
    "plans",
    METADATA,
    text("plan_id", primary_key=True),
    text("display_name"),
    text("limits"),
    time("create_ms"),
    time("update_ms"),
)

tenants = sa.Table(
    "tenants",
    METADATA,
    text("tenant_id", primary_key=True),
    text("display_name"),
    text("plan", sa.ForeignKey("plans.plan_id"), nullable=True, index=True),
    sa.Column("default_priority", sa.Integer, nullable=False),
    sa.Column("highest_priority", sa.Integer, nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
    text("networks"),
    flag("disabled"),
    # {model: limits}
    text("model_limits"),
    text("time_zone"),
    text("currency"),
    flag("allow_on_keeper_loss"),
    flag("response_cache"),
    flag("forbid_upstream_engines"),
    time("create_ms"),
    time("update_ms"),
)

people = sa.Table(
    "people",
    METADATA,
    text("person_id", primary_key=True),
    text("email"),
    # Without differences of case; null for people whose address is unknown.
    text("email_key", nullable=True, unique=True),
    text("display_name"),
    text("issuer", nullable=True),
    text("subject", nullable=True),
    flag("deactivated"),
    time("create_ms"),
    time("last_sign_in_ms", nullable=True),
    sa.UniqueConstraint("issuer", "subject"),
)

members = sa.Table(
    "members",
    METADATA,
    text("tenant", sa.ForeignKey("tenants.tenant_id"), primary_key=True),
    text("person", sa.ForeignKey("people.person_id"), primary_key=True, index=True),
    text("role"),
    time("create_ms"),
)

keys = sa.Table(
    "keys",
    METADATA,
    text("key_id", primary_key=True),
    text("tenant", sa.ForeignKey("tenants.tenant_id")),
    text("person", sa.ForeignKey("people.person_id"), nullable=True, index=True),
    text("display_name"),
    text("scopes"),
    text("models"),
    text("networks"),
    text("limits"),
    text("model_limits"),
    text("labels"),
    text("redacted"),
    # [{"digest": hexadecimal, "pepper_id", "expire_ms"}], the newest first.
    text("digests"),
    time("expire_ms", nullable=True),
    time("create_ms"),
    time("update_ms"),
    time("revoke_ms", nullable=True),
    time("last_use_ms", nullable=True),
    text("last_use_client"),
    sa.Index(None, "tenant", "key_id"),
)

invitations = sa.Table(
    "invitations",
    METADATA,
    text("invitation_id", primary_key=True),
    text("tenant", sa.ForeignKey("tenants.tenant_id"), index=True),
    text("email"),
    text("role"),
    text("token_hash", unique=True),
    time("expire_ms"),
    time("create_ms"),
)

sessions = sa.Table(
    "sessions",
    METADATA,
    text("session_id", primary_key=True),
    text("digest", unique=True),
    text("tenant", sa.ForeignKey("tenants.tenant_id"), index=True),
    text("person", sa.ForeignKey("people.person_id"), nullable=True, index=True),
    text("key_id", sa.ForeignKey("keys.key_id"), nullable=True, index=True),
    text("opened_by"),
    text("client"),
    time("create_ms"),
    sa.Column("expire_ms", sa.BigInteger, nullable=False, index=True),
)

audit_events = sa.Table(
    "audit_events",
    METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    time("time_ms"),
    text("action"),
    text("resource"),
    text("tenant"),
    text("actor"),
    text("client"),
    text("details"),
    text("previous_hash"),
    text("hash"),
    sa.Index(None, "tenant", "sequence"),
    sa.Index(None, "action", "sequence"),
)

# One row. Whoever changes the database locks it first, so that the chain has one end.
audit_head = sa.Table(
    "audit_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    text("hash"),
)

outbox = sa.Table(
    "outbox",
    METADATA,
    sa.Column(
        "sequence",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    text("table_name"),
    text("row_key"),
    sa.Column("row", sa.LargeBinary, nullable=True),
    # No sequence is used again, so a late `done` deletes nothing new.
    sqlite_autoincrement=True,
)

access_reports = sa.Table(
    "access_reports",
    METADATA,
    text("gateway_id", primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    time("time_ms"),
)

# Facts about the database itself: `written_by`, the version of Headrace that last upgraded it.
facts = sa.Table("facts", METADATA, text("name", primary_key=True), text("value"))
