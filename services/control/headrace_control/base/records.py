"""What control keeps, as the rest of it sees it. Pure.

Times are aware datetimes in UTC, to the millisecond; None is never. Names of resources are without
their collection: `acme`, not `tenants/acme`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Generic, TypeVar

from headrace.v1.common_pb2 import Priority

T = TypeVar("T")

VIEWER, MEMBER, ADMIN, OWNER = ROLES = ("viewer", "member", "admin", "owner")
"""Of a person in a tenant; each may do what those before it may."""

BY_KEY, BY_PROVIDER, BY_INVITATION = "key", "oidc", "invitation"
"""How a session was opened."""

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers, as audit events name it: `Caller.actor` and `Caller.client`."""

    name: str
    """tenants/{tenant}/keys/{key}, people/{person}, `anonymous` or `system`."""
    client: str = ""
    """Address; empty: unknown, or control itself."""


SYSTEM = Actor("system")


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent_requests: int = 0
    batch_tokens_per_day: int = 0
    requests_per_day: int = 0
    budget_nanos_per_month: int = 0
    """In nano-units (1e-9) of the tenant's currency."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Limits of one model, besides those of all models together."""

    model: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Plan:
    plan_id: str
    display_name: str = ""
    limits: Limits = Limits()
    create_time: datetime | None = None
    """Set by the store, as `update_time`."""
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: str
    display_name: str = ""
    plan: str = ""
    """Empty: no limits."""
    default_priority: Priority.ValueType = Priority.PRIORITY_STANDARD
    highest_priority: Priority.ValueType = Priority.PRIORITY_INTERACTIVE
    weight: float = 1.0
    networks: tuple[str, ...] = ()
    disabled: bool = False
    model_limits: tuple[ModelLimits, ...] = ()
    """By model, each once, and none without a limit."""
    time_zone: str = "UTC"
    """IANA name, of the zone in which its days and months begin."""
    currency: str = "USD"
    """ISO 4217, in which it is billed."""
    allow_on_keeper_loss: bool = False
    """Requests that a limit applies to are admitted while the quota keeper does not answer."""
    response_cache: bool = False
    """Its answers may come from a cache, where a request asks for it."""
    forbid_upstream_engines: bool = False
    """Engines that are not the mesh's own may not serve it."""
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Of a token of a model, in nano-units (1e-9) of the currency, from a time on."""

    model: str
    currency: str
    valid_from: datetime | None
    """None: when it is created."""
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int
    price_id: str = ""
    """Set by the store, as `create_time`."""
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """One secret of a key."""

    digest: bytes = field(repr=False)
    """HMAC-SHA256(pepper, key)."""
    pepper_id: str
    expire_time: datetime | None = None
    """When this secret ends, after a rotation; None: with the key."""


@dataclass(frozen=True, slots=True)
class Key:
    key_id: str
    tenant: str
    person: str = ""
    """Id of the person whose key it is; empty: the tenant's own."""
    display_name: str = ""
    scopes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    limits: Limits = Limits()
    model_limits: tuple[ModelLimits, ...] = ()
    """As a tenant's."""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    redacted: str = ""
    expire_time: datetime | None = None
    digests: tuple[Digest, ...] = ()
    """The newest first; two while a rotation goes on. Empty once it is revoked."""
    create_time: datetime | None = None
    update_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    last_use_client: str = ""

    def is_valid_at(self, now: datetime) -> bool:
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


@dataclass(frozen=True, slots=True)
class Person:
    person_id: str
    email: str = ""
    """As it was given; people are found by it whatever its case. Empty: unknown."""
    display_name: str = ""
    issuer: str = ""
    """Of the OpenID provider that knows this person, with its `sub`; empty: none yet."""
    subject: str = ""
    deactivated: bool = False
    create_time: datetime | None = None
    last_sign_in_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, as an OpenID provider has proved who this is."""

    issuer: str
    subject: str
    """Never changes and is never given to another person, unlike the address."""
    email: str = ""
    """Only an address that the provider has verified; empty: none."""
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    tenant: str
    person: str
    role: str
    email: str = ""
    """Of the person."""
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    invitation_id: str
    tenant: str
    email: str
    role: str
    expire_time: datetime
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A session, with what follows now from its person's membership or from its key."""

    session_id: str
    digest: str
    """SHA-256 of the cookie's value, in hexadecimal."""
    tenant: str
    person: str = ""
    """Empty for a session that was opened with a tenant's own key."""
    key_id: str = ""
    """Of the key that it was opened with; empty: none."""
    opened_by: str = BY_PROVIDER
    """BY_KEY, BY_PROVIDER or BY_INVITATION. Only one by the provider proves who the person is, so
    only that one may switch to another tenant."""
    client: str = ""
    create_time: datetime | None = None
    expire_time: datetime | None = None
    """Not after that of its key."""
    role: str = ""
    """Empty for a session that was opened with a key, which has what follows, of the key."""
    scopes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEvent:
    sequence: int
    """Without gaps, from 1."""
    time: datetime
    action: str
    """keys.create, access.failed ..."""
    resource: str
    """Full name: tenants/acme/keys/8dFanMt4iD4."""
    tenant: str
    """That it concerns; empty: none."""
    actor: str
    client: str
    details: str
    """What was changed, as JSON; never a secret."""
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A change of a table on the bus that is committed and not yet known to be published."""

    sequence: int
    """Grows; no two rows ever have the same one."""
    table: str
    """One of `headrace.bus.subjects.TABLES`; or REPUBLISH."""
    key: str
    row: bytes | None
    """Serialized KeyRow, TenantRow or SessionRow; None: the row is deleted."""


REPUBLISH = "*"
"""Table of an outbox row that means: make all tables what `Outbox.all_rows()` returns now, deleting
whatever else they hold. Written by `headrace db republish` and `restore`."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """As a gateway reports it."""

    key_id: str
    last_use_time: datetime
    client: str = ""
    renewed: Digest | None = None
    """The digest under the current pepper, if the one that the gateway found is of an older one;
    its `expire_time` is that of the one found."""


@dataclass(frozen=True, slots=True)
class FailedAttempts:
    """As a gateway reports them, for one address, reason and key."""

    client: str
    reason: str
    key_id: str
    count: int
    first_time: datetime
    last_time: datetime


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_page_token: str = ""
    """Empty on the last page."""


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a check of the audit's hashes found."""

    events: int
    head: str
    """Hash of the last event; to be kept elsewhere by whoever wants proof against a rewritten
    database."""
    fault: str = ""
    """The first fault, as a sentence; empty: none."""
