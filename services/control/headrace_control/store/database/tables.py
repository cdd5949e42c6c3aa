"""The tables of the database. `migrations/` makes them; a test holds the two against each other.

Times are Unix milliseconds. Lists and maps are JSON.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class String(sa.types.TypeDecorator[str]):
    """Text as any caller may send it, sorted by code points on every database."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        is_postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(sa.Text(collation="C") if is_postgres else sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        # PostgreSQL stores no NUL, and neither database half of a surrogate pair.
        if value is None:
            return None
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _time(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _text(name: str, *constraints: Any, **options: Any) -> sa.Column[str]:
    return sa.Column(name, String, *constraints, nullable=options.pop("nullable", False), **options)


plans = sa.Table(
    "plans",
    METADATA,
    _text("plan_id", primary_key=True),
    _text("display_name"),
    _text("limits"),
    _time("create_ms"),
    _time("update_ms"),
)

tenants = sa.Table(
    "tenants",
    METADATA,
    _text("tenant_id", primary_key=True),
    _text("display_name"),
    _text("plan", sa.ForeignKey("plans.plan_id"), nullable=True, index=True),
    sa.Column("default_priority", sa.Integer, nullable=False),
    sa.Column("highest_priority", sa.Integer, nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
    _text("networks"),
    sa.Column("disabled", sa.Boolean, nullable=False),
    _time("create_ms"),
    _time("update_ms"),
)

people = sa.Table(
    "people",
    METADATA,
    _text("person_id", primary_key=True),
    _text("email"),
    # Without differences of case; null for people whose address is unknown.
    _text("email_key", nullable=True, unique=True),
    _text("display_name"),
    _text("issuer", nullable=True),
    _text("subject", nullable=True),
    sa.Column("deactivated", sa.Boolean, nullable=False),
    _time("create_ms"),
    _time("last_sign_in_ms", nullable=True),
    sa.UniqueConstraint("issuer", "subject"),
)

members = sa.Table(
    "members",
    METADATA,
    _text("tenant", sa.ForeignKey("tenants.tenant_id"), primary_key=True),
    _text("person", sa.ForeignKey("people.person_id"), primary_key=True, index=True),
    _text("role"),
    _time("create_ms"),
)

keys = sa.Table(
    "keys",
    METADATA,
    _text("key_id", primary_key=True),
    _text("tenant", sa.ForeignKey("tenants.tenant_id")),
    _text("person", sa.ForeignKey("people.person_id"), nullable=True, index=True),
    _text("display_name"),
    _text("scopes"),
    _text("models"),
    _text("networks"),
    _text("limits"),
    _text("labels"),
    _text("redacted"),
    # [{"digest": hexadecimal, "pepper_id", "expire_ms"}], the newest first.
    _text("digests"),
    _time("expire_ms", nullable=True),
    _time("create_ms"),
    _time("update_ms"),
    _time("revoke_ms", nullable=True),
    _time("last_use_ms", nullable=True),
    _text("last_use_client"),
    sa.Index(None, "tenant", "key_id"),
)

invitations = sa.Table(
    "invitations",
    METADATA,
    _text("invitation_id", primary_key=True),
    _text("tenant", sa.ForeignKey("tenants.tenant_id"), index=True),
    _text("email"),
    _text("role"),
    _text("token_hash", unique=True),
    _time("expire_ms"),
    _time("create_ms"),
)

sessions = sa.Table(
    "sessions",
    METADATA,
    _text("session_id", primary_key=True),
    _text("digest", unique=True),
    _text("tenant", sa.ForeignKey("tenants.tenant_id"), index=True),
    _text("person", sa.ForeignKey("people.person_id"), nullable=True, index=True),
    _text("key_id", sa.ForeignKey("keys.key_id"), nullable=True, index=True),
    _text("opened_by"),
    _text("client"),
    _time("create_ms"),
    sa.Column("expire_ms", sa.BigInteger, nullable=False, index=True),
)

audit_events = sa.Table(
    "audit_events",
    METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    _time("time_ms"),
    _text("action"),
    _text("resource"),
    _text("tenant"),
    _text("actor"),
    _text("client"),
    _text("details"),
    _text("previous_hash"),
    _text("hash"),
    sa.Index(None, "tenant", "sequence"),
    sa.Index(None, "action", "sequence"),
)

# One row. Whoever changes the database locks it first, so that the chain has one end.
audit_head = sa.Table(
    "audit_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    _text("hash"),
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
    _text("table_name"),
    _text("row_key"),
    sa.Column("row", sa.LargeBinary, nullable=True),
    # No sequence is used again, so a late `done` deletes nothing new.
    sqlite_autoincrement=True,
)

access_reports = sa.Table(
    "access_reports",
    METADATA,
    _text("gateway_id", primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    _time("time_ms"),
)

# Facts about the database itself: `written_by`, the version of Headrace that last upgraded it.
facts = sa.Table("facts", METADATA, _text("name", primary_key=True), _text("value"))
