"""The outbox holds what the tables on the bus still lack, whatever happens in between."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from headrace.errors import ResourceNotFound
from headrace.internal.v1.access_pb2 import TenantRow
from headrace_control.base.records import REPUBLISH, Key, OutboxRow, Tenant
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock, make_key, replay


async def test_rows_come_in_order_until_they_are_done(store: Store) -> None:
    for name in ("a", "b", "c"):
        await store.tenants.create(Tenant(name), by=ROOT)
    rows = await store.outbox.pending(limit=2)
    assert [row.key for row in rows] == ["a", "b"]
    assert await store.outbox.pending(limit=2) == rows
    await store.outbox.done([row.sequence for row in rows])
    await store.outbox.done([row.sequence for row in rows])
    assert [row.key for row in await store.outbox.pending()] == ["c"]


async def test_no_sequence_is_used_again(store: Store) -> None:
    await store.tenants.create(Tenant("a"), by=ROOT)
    (first,) = await store.outbox.pending()
    await store.outbox.done([first.sequence])
    await store.tenants.create(Tenant("b"), by=ROOT)
    await store.outbox.done([first.sequence])  # a publisher that was paused
    assert [row.key for row in await store.outbox.pending()] == ["b"]


async def test_a_process_that_dies_after_its_commit_leaves_the_outbox(
    store: Store, database_url: str
) -> None:
    """The change is committed, and nothing else has been done about it: the next one publishes."""
    script = (
        "import asyncio, os\n"
        "from headrace_control.base.records import SYSTEM, Tenant\n"
        "from headrace_control.store import Store\n"
        "async def main():\n"
        f"    store = await Store.open({database_url!r})\n"
        "    await store.tenants.create(Tenant('acme'), by=SYSTEM)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], timeout=50)
    assert died.returncode == -9
    (row,) = await store.outbox.pending()
    assert row.row is not None
    assert (row.table, TenantRow.FromString(row.row).tenant) == ("tenants", "acme")
    assert (await store.audit.verify_chain()).fault == ""


async def test_a_cancelled_change_leaves_no_trace(store: Store) -> None:
    for step_s in (0.0, 0.001, 0.003, 0.01):
        task = asyncio.create_task(store.tenants.create(Tenant("acme"), by=ROOT))
        await asyncio.sleep(step_s)
        task.cancel()
        await asyncio.wait({task})
        try:
            await store.tenants.get("acme")
        except ResourceNotFound:
            assert await store.outbox.pending() == ()
            assert (await store.audit.verify_chain()).events == 0
        else:
            assert len(await store.outbox.pending()) == 1
            break
    assert (await store.audit.verify_chain()).fault == ""


async def test_a_change_that_is_cancelled_under_way_keeps_no_other_waiting(store: Store) -> None:
    for number in range(60):
        task = asyncio.create_task(store.tenants.create(Tenant(f"a{number}"), by=ROOT))
        await asyncio.sleep(number * 0.0002)
        task.cancel()
        await asyncio.wait({task})
        async with asyncio.timeout(5):  # half of what a writer waits before it gives up
            await store.tenants.create(Tenant(f"b{number}"), by=ROOT)
    assert (await store.audit.verify_chain()).fault == ""


async def test_a_republish_is_one_row_that_stands_for_all(store: Store) -> None:
    await make_key(store, Key("k1", "acme"))
    tables = await replay(store)
    tables["keys"]["left-over"] = b"row of a key that the database does not have"
    await store.outbox.request_republish(by=ROOT)
    (row,) = await store.outbox.pending()
    assert row == OutboxRow(row.sequence, REPUBLISH, "", None)
    assert await replay(store, tables) == await store.outbox.all_rows()


async def test_a_waiter_hears_of_rows_at_once(store: Store) -> None:
    waiting = asyncio.create_task(store.outbox.wait_for_rows(30))
    await asyncio.sleep(0)
    await store.tenants.create(Tenant("acme"), by=ROOT)
    async with asyncio.timeout(10):
        await waiting
    await store.outbox.wait_for_rows(0.01)  # none was written: the time passes


async def test_a_use_writes_nothing_to_the_outbox(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    await replay(store)
    await store.uses.record("gw", 1, pepper_id="p1")
    assert await store.outbox.pending() == ()


@pytest.mark.parametrize("name", ["x'; DELETE FROM keys; --", '"', "%", "\0", "\ud800", "a" * 9999])
async def test_names_are_values_and_never_sql(store: Store, name: str) -> None:
    key = Key("k1", "acme", display_name=name, labels={name: name})
    created = await make_key(store, key)
    assert created.labels == {name: name}
    if "\0" not in name and name.isprintable():
        assert created.display_name == name
    for find in (
        lambda: store.tenants.get(name),
        lambda: store.keys.find(name),
        lambda: store.people.get(name),
        lambda: store.sessions.get(name),
    ):
        with pytest.raises(ResourceNotFound):
            await find()
    assert await store.people.try_by_subject(name, name) is None
    assert await store.sessions.try_by_digest(name) is None
    assert (await store.keys.list(name)).items == ()
    assert await store.keys.count() == 1
    assert (await store.audit.verify_chain()).fault == ""
