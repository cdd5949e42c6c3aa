"""The audit: a chain that concurrent writers keep, and that shows every change to it."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256

import pytest
import sqlalchemy as sa

from headrace_control.base.audit_hash import FIRST_HASH, event_fields, hashed_json
from headrace_control.base.records import Actor, Key, Tenant
from headrace_control.store import PageOptions, Store
from headrace_control.store.database.opening import open_engine
from headrace_control.store.database.tables import audit_events
from helpers.control_store import ROOT, TestClock, make_key


async def execute(database_url: str, statement: sa.Executable) -> None:
    """Change the database behind the store's back."""
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(statement)
    await engine.dispose()


async def test_an_exports_chain_is_checked_with_sha256_alone(store: Store) -> None:
    await store.tenants.create(Tenant("acme", display_name="公司"), by=Actor("people/ü\0\ud800"))
    await store.audit.append("workers.drain", "workers/w1", details={"grace_s": 1.5}, by=ROOT)
    last = FIRST_HASH
    async for event in store.audit.export():
        fields = json.loads(json.dumps(event_fields(event)))
        assert fields.pop("previous_hash") == last
        last = fields.pop("hash")
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert text == hashed_json(event)
        assert sha256((event.previous_hash + text).encode()).hexdigest() == last
    report = await store.audit.verify_chain()
    assert (report.events, report.head, report.fault) == (2, last, "")


async def test_writers_of_several_processes_keep_one_chain_without_gaps(
    store: Store, database_url: str, clock: TestClock
) -> None:
    others = [await Store.open(database_url, clock=clock) for _ in range(2)]
    stores = [store, *others]
    await asyncio.gather(
        *(
            stores[n % 3].tenants.create(Tenant(f"t{n % 20}"), by=ROOT)
            if n < 20
            else make_key(stores[n % 3], Key(f"k{n}", f"t{n % 20}"))
            for n in range(60)
        ),
        return_exceptions=True,  # a tenant may have been made by its key
    )
    report = await store.audit.verify_chain()
    assert report.fault == ""
    assert report.events == len(await store.outbox.pending(limit=1000))
    assert len((await store.tenants.list()).items) == 20
    assert await store.keys.count() == 40
    for other in others:
        await other.close()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (
            sa.update(audit_events).where(audit_events.c.sequence == 2).values(actor="people/x"),
            "event 2 was changed",
        ),
        (sa.update(audit_events).values(time_ms=0), "event 1 was changed"),
        (sa.delete(audit_events).where(audit_events.c.sequence == 1), "event 1 is missing"),
        (sa.delete(audit_events).where(audit_events.c.sequence == 2), "event 2 is missing"),
        (
            sa.delete(audit_events).where(audit_events.c.sequence == 3),
            "the chain ends at event 2, its head says 3",
        ),
    ],
)
async def test_a_change_a_gap_or_a_missing_end_shows(
    store: Store, database_url: str, statement: sa.Executable, fault: str
) -> None:
    for name in ("a", "b", "c"):
        await store.tenants.create(Tenant(name), by=ROOT)
    await execute(database_url, statement)
    assert (await store.audit.verify_chain()).fault == fault


async def test_a_list_is_by_tenant_and_action_newest_first(store: Store) -> None:
    for name in ("a", "b"):
        for number in range(3):
            await make_key(store, Key(f"{name}{number}", name))
    assert [event.sequence for event in (await store.audit.list()).items] == list(range(8, 0, -1))
    only = await store.audit.list(tenant="b", action="keys.create", options=PageOptions(2))
    assert [event.resource[-2:] for event in only.items] == ["b2", "b1"]
    rest = await store.audit.list(
        tenant="b", action="keys.create", options=PageOptions(2, only.next_page_token)
    )
    assert [event.resource[-2:] for event in rest.items] == ["b0"]
    assert (await store.audit.list(action="'; drop table audit_events; --")).items == ()
    assert [event.sequence async for event in store.audit.export(6)] == [7, 8]
    assert [event.sequence async for event in store.audit.export(2**70)] == []
