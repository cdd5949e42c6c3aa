"""What tests of control's store share: a clock that stands, records, and a reader of the outbox."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from headrace.bus.subjects import TABLES
from headrace_control.base.published_rows import EPOCH
from headrace_control.base.records import (
    BY_KEY,
    BY_PROVIDER,
    REPUBLISH,
    Actor,
    Digest,
    Key,
    Person,
    Session,
    Tenant,
)
from headrace_control.store import Store

ROOT = Actor("tenants/headrace/keys/root", "192.0.2.7")
START_S = 1_790_000_000.0


class TestClock:
    """Stands until a test moves it."""

    __test__ = False

    def __init__(self) -> None:
        self.time_s = START_S

    def monotonic_s(self) -> float:
        return self.time_s

    def unix_s(self) -> float:
        return self.time_s

    @property
    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time_s)

    def advance(self, seconds: float) -> None:
        self.time_s += seconds

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)


def digest(text: str, pepper: str = "p1", expire: datetime | None = None) -> Digest:
    return Digest(sha256(text.encode()).digest(), pepper, expire)


async def make_key(store: Store, key: Key, pepper: str = "p1") -> Key:
    return await store.keys.create(key, digest(key.key_id, pepper), make_tenant=True, by=ROOT)


async def make_member(store: Store, tenant: str, email: str, role: str = "member") -> Person:
    """Make a person who is a member of a tenant, and the tenant if there is none."""
    found = (await store.tenants.list()).items
    if tenant not in [each.tenant_id for each in found]:
        await store.tenants.create(Tenant(tenant), by=ROOT)
    person = await store.people.create(Person("", email=email), by=ROOT)
    await store.members.create(tenant, person.person_id, role, by=ROOT)
    return person


async def open_session(
    store: Store, tenant: str, *, person: str = "", key_id: str = "", expires: datetime
) -> Session:
    new = Session(
        "",
        sha256(f"{tenant} {person} {key_id} {expires}".encode()).hexdigest(),
        tenant,
        person=person,
        key_id=key_id,
        opened_by=BY_KEY if key_id else BY_PROVIDER,
        expire_time=expires,
    )
    return await store.sessions.create(new, by=ROOT)


async def replay(store: Store, tables: dict[str, dict[str, bytes]] | None = None) -> Tables:
    """Apply the outbox to the tables as control does, empty it, and return them."""
    tables = {table: {} for table in TABLES} if tables is None else tables
    while pending := await store.outbox.pending(limit=7):
        for row in pending:
            if row.table == REPUBLISH:
                tables.update(await store.outbox.all_rows())
            elif row.row is None:
                tables[row.table].pop(row.key, None)
            else:
                tables[row.table][row.key] = row.row
        await store.outbox.done([row.sequence for row in pending])
    return tables


Tables = dict[str, dict[str, bytes]]
