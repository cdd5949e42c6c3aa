"""The tables on the bus are what the database says, whatever dies in between."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.subjects import KEYS_TABLE, TABLE_STAMP, TABLES, TENANTS_TABLE
from headrace.clock import SystemClock
from headrace.internal.v1.access_pb2 import TableStamp
from headrace.testing.nats_server import NatsServer
from headrace_control.base.records import Key, OutboxRow, Tenant
from headrace_control.publishing import publisher as publishing_module
from headrace_control.publishing.election import SteppedDown
from headrace_control.publishing.publisher import Publisher
from headrace_control.store import Store
from helpers.control_store import ROOT, make_key
from helpers.eventually import eventually


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    connected = await connect(nats.url, name="control")
    yield connected
    await connected.close()


@asynccontextmanager
async def publishing(
    bus: JetStreamBus, store: Store, *, stamp_s: float = 10.0
) -> AsyncIterator[Publisher]:
    """A publisher that has compared the tables, until it is killed at the end."""
    publisher = Publisher(bus, store.outbox, SystemClock(), stamp_s=stamp_s, is_active=lambda: True)
    task = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(5):
            await publisher.compared.wait()
        yield publisher
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def tables(bus: JetStreamBus) -> dict[str, dict[str, bytes]]:
    """The tables without their stamps."""
    found = {table: await bus.rows(table) for table in TABLES}
    for rows in found.values():
        rows.pop(TABLE_STAMP, None)
    return found


async def agrees(bus: JetStreamBus, store: Store) -> bool:
    return await tables(bus) == await store.outbox.all_rows() and not await store.outbox.pending()


async def stamp_ms(bus: JetStreamBus, table: str) -> int:
    return TableStamp.FromString((await bus.rows(table))[TABLE_STAMP]).time_ms


async def test_what_is_settled_has_been_published(bus: JetStreamBus, store: Store) -> None:
    async with publishing(bus, store) as publisher:
        for number in range(20):
            await make_key(store, Key(f"k{number}", "acme", scopes=("generate",), models=("*",)))
            async with asyncio.timeout(0.8):  # below the pause between looks at the outbox
                await publisher.settled()
            assert f"k{number}" in await bus.rows(KEYS_TABLE)
        await store.keys.revoke("acme", "k7", by=ROOT)
        await publisher.settled()
        assert "k7" not in await bus.rows(KEYS_TABLE)
        assert await agrees(bus, store)


async def test_what_was_committed_before_a_death_is_published_by_the_successor(
    bus: JetStreamBus, store: Store, tmp_path: Path
) -> None:
    async with publishing(bus, store):
        await make_key(store, Key("old", "acme", scopes=("generate",), models=("*",)))
    await make_key(store, Key("new", "acme", scopes=("generate",), models=("*",)))
    await store.keys.revoke("acme", "old", by=ROOT)
    assert await store.outbox.pending()
    await store.close()
    again = await Store.open(f"sqlite:///{tmp_path / 'control.db'}")
    async with publishing(bus, again) as publisher:
        await publisher.settled()
        assert (await tables(bus))[KEYS_TABLE].keys() == {"new"}
        assert await agrees(bus, again)
    await again.close()


async def test_a_key_that_is_revoked_before_it_was_published_is_never_seen(
    bus: JetStreamBus, store: Store
) -> None:
    seen: list[str] = []
    watch = await bus.watch_table(
        KEYS_TABLE,
        lambda rows: seen.extend(rows),
        lambda key, row: seen.append(key) if row else None,
    )
    await make_key(store, Key("short", "acme", scopes=("generate",), models=("*",)))
    await store.keys.revoke("acme", "short", by=ROOT)
    await make_key(store, Key("long", "acme", scopes=("generate",), models=("*",)))
    async with publishing(bus, store) as publisher:
        await publisher.settled()
        await eventually(lambda: "long" in seen)
        assert "short" not in seen
    await watch.close()


async def test_what_the_database_does_not_know_is_deleted_and_what_differs_is_replaced(
    bus: JetStreamBus, store: Store
) -> None:
    await make_key(store, Key("k1", "acme.eu", scopes=("generate",), models=("*",)))
    await bus.put_row(KEYS_TABLE, "forged", b"")
    await bus.put_row(KEYS_TABLE, "k1", b"forged")
    await bus.put_row(TENANTS_TABLE, "gone", b"")
    async with publishing(bus, store):
        found = await tables(bus)
        assert found[KEYS_TABLE] == (await store.outbox.all_rows())[KEYS_TABLE]
        assert found[TENANTS_TABLE].keys() == {"acme=eu"}
        assert all([await stamp_ms(bus, table) for table in TABLES])


async def test_stamps_are_renewed_while_the_tables_are_right(
    bus: JetStreamBus, store: Store
) -> None:
    async with publishing(bus, store, stamp_s=0.05):
        first = await stamp_ms(bus, KEYS_TABLE)

        async def all_newer() -> bool:
            return all([await stamp_ms(bus, table) > first for table in TABLES])

        await eventually(all_newer)


async def test_a_request_to_republish_repairs_the_tables(bus: JetStreamBus, store: Store) -> None:
    await make_key(store, Key("k1", "acme", scopes=("generate",), models=("*",)))
    async with publishing(bus, store) as publisher:
        await bus.delete_row(KEYS_TABLE, "k1")
        await bus.put_row(KEYS_TABLE, "forged", b"")
        await store.outbox.request_republish(by=ROOT)
        await publisher.settled()
        assert await agrees(bus, store)


async def test_changes_while_the_broker_is_away_are_published_when_it_is_back(
    nats: NatsServer, bus: JetStreamBus, store: Store
) -> None:
    async with publishing(bus, store) as publisher:
        await make_key(store, Key("before", "acme", scopes=("generate",), models=("*",)))
        await publisher.settled()
        await nats.kill()
        await make_key(store, Key("meanwhile", "acme", scopes=("generate",), models=("*",)))
        await store.keys.revoke("acme", "before", by=ROOT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await publisher.settled()
        await nats.start()
        async with asyncio.timeout(15):
            await publisher.settled()
        assert await agrees(bus, store)


async def test_a_broker_that_lost_its_store_gets_everything_again(
    nats: NatsServer, bus: JetStreamBus, store: Store
) -> None:
    for number in range(50):
        await make_key(store, Key(f"k{number}", "acme", scopes=("generate",), models=("*",)))
    async with publishing(bus, store):
        await nats.stop()
        shutil.rmtree(nats.directory / "store")
        await nats.start()

        async def restored() -> bool:
            try:
                return await agrees(bus, store) and await stamp_ms(bus, KEYS_TABLE) > 0
            except Exception:  # noqa: BLE001  # the stores are not there yet
                return False

        await eventually(restored, within_s=15)


async def test_what_a_former_process_writes_late_is_repaired_with_the_next_stamp(
    bus: JetStreamBus, store: Store
) -> None:
    await make_key(store, Key("k1", "acme", scopes=("generate",), models=("*",)))
    valid = (await store.outbox.all_rows())[KEYS_TABLE]["k1"]
    async with publishing(bus, store, stamp_s=0.3) as publisher:
        await store.keys.revoke("acme", "k1", by=ROOT)
        await publisher.settled()
        await bus.put_row(KEYS_TABLE, "k1", valid)

        async def is_revoked() -> bool:
            return "k1" not in await bus.rows(KEYS_TABLE)

        await eventually(is_revoked, within_s=5)


async def test_a_table_that_only_this_process_writes_is_not_read_again_for_each_stamp(
    bus: JetStreamBus, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing(bus, store, stamp_s=0.05) as publisher:
        first = await stamp_ms(bus, KEYS_TABLE)
        for number in range(5):
            await make_key(store, Key(f"k{number}", "acme", scopes=("generate",), models=("*",)))
            await store.keys.revoke("acme", f"k{number}", by=ROOT)
            await publisher.settled()

        async def is_newer() -> bool:
            return await stamp_ms(bus, KEYS_TABLE) > first + 200

        await eventually(is_newer)
    assert "publishing.other_writer" not in caplog.messages


async def test_no_stamp_is_older_than_that_of_a_process_whose_clock_was_ahead(
    bus: JetStreamBus, store: Store
) -> None:
    ahead_ms = int(time.time() * 1000) + 3_600_000
    for table in TABLES:
        stamp = TableStamp(time_ms=ahead_ms).SerializeToString()
        await bus.put_row(table, TABLE_STAMP, stamp)
    async with publishing(bus, store):
        assert all([await stamp_ms(bus, table) > ahead_ms for table in TABLES])


async def test_a_process_that_is_not_active_publishes_nothing(
    bus: JetStreamBus, store: Store
) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    publisher = Publisher(bus, store.outbox, SystemClock(), stamp_s=10, is_active=lambda: False)
    with pytest.raises(SteppedDown):
        await publisher.run()
    assert all([not await bus.rows(table) for table in TABLES])
    assert await store.outbox.pending()


async def test_only_a_table_that_was_right_before_is_warned_about(
    bus: JetStreamBus, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[tuple[str, str]]:
        found = [(each.levelname, each.getMessage()) for each in caplog.records]
        return [each for each in found if each[1] in ("publishing.filled", "publishing.repaired")]

    caplog.set_level(logging.INFO)
    await make_key(store, Key("k1", "acme", scopes=("generate",), models=("*",)))
    async with publishing(bus, store):
        assert logged() == [("INFO", "publishing.filled")] * 2
    caplog.clear()
    async with publishing(bus, store):
        assert logged() == []
    await bus.delete_row(KEYS_TABLE, "k1")
    async with publishing(bus, store):
        assert logged() == [("WARNING", "publishing.repaired")]


async def test_a_process_whose_database_does_not_answer_leaves_it_to_another_one(
    bus: JetStreamBus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing_module, "ANSWER_S", 0.1)
    monkeypatch.setattr(publishing_module, "NO_DATABASE_S", 0.3)
    publisher = Publisher(bus, store.outbox, SystemClock(), stamp_s=10, is_active=lambda: True)
    running = asyncio.create_task(publisher.run())
    async with asyncio.timeout(10):
        await publisher.compared.wait()

        async def never(limit: int = 0) -> tuple[OutboxRow, ...]:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("it never ends")

        monkeypatch.setattr(store.outbox, "pending", never)
        with pytest.raises(SteppedDown, match="the database cannot be used"):
            await running
