"""Tables of the bus: read whole, watched, and read whole again after a broker comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus, connect, tables
from headrace.testing.nats_server import NatsServer, nats_server
from helpers.eventually import eventually

TABLE = "keys"


class Watched:
    """A table as a watch has it."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] | None = None
        self.read_whole = 0

    def on_table(self, rows: dict[str, bytes]) -> None:
        self.rows, self.read_whole = dict(rows), self.read_whole + 1

    def on_row(self, key: str, row: bytes | None) -> None:
        assert self.rows is not None, "a change before the table"
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[JetStreamBus]:
    connected = await connect(server.url, name="tables")
    yield connected
    await connected.close()


async def test_a_watch_has_the_rows_that_are_there_and_hears_of_changes(bus: JetStreamBus) -> None:
    await bus.put_row(TABLE, "a", b"1")
    await bus.put_row(TABLE, "b.c=d", b"2")
    await bus.put_row(TABLE, "gone", b"3")
    await bus.delete_row(TABLE, "gone")
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows == {"a": b"1", "b.c=d": b"2"})
    await bus.put_row(TABLE, "a", b"4")
    await bus.delete_row(TABLE, "b.c=d")
    await eventually(lambda: seen.rows == {"a": b"4"})
    assert await bus.rows(TABLE) == {"a": b"4"}
    assert seen.read_whole == 1
    await watch.close()
    await bus.put_row(TABLE, "a", b"5")
    assert seen.rows == {"a": b"4"}


async def test_an_empty_table_is_whole_at_once(bus: JetStreamBus) -> None:
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows == {})
    assert await bus.rows(TABLE) == {}
    await watch.close()


async def test_deleting_a_row_that_is_not_there_is_no_error(bus: JetStreamBus) -> None:
    await bus.delete_row(TABLE, "nothing")
    assert await bus.rows(TABLE) == {}


async def test_a_change_while_the_watcher_was_cut_off_is_seen_after_the_broker_is_back(
    server: NatsServer, bus: JetStreamBus
) -> None:
    await bus.put_row(TABLE, "kept", b"1")
    await bus.put_row(TABLE, "revoked", b"2")
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows is not None and len(seen.rows) == 2)
    await server.stop()
    await server.start()
    other = await connect(server.url, name="writer")
    await other.delete_row(TABLE, "revoked")
    await other.close()
    await eventually(lambda: seen.rows == {"kept": b"1"})
    await eventually(lambda: seen.read_whole == 2)
    await watch.close()


async def test_a_broker_that_lost_its_store_is_read_anew(
    server: NatsServer, bus: JetStreamBus
) -> None:
    await bus.put_row(TABLE, "old", b"1")
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows == {"old": b"1"})
    await server.stop()
    shutil.rmtree(server.directory / "store")
    await server.start()
    other = await connect(server.url, name="writer")
    await other.put_row(TABLE, "new", b"2")
    await eventually(lambda: seen.rows == {"new": b"2"})
    await other.close()
    await watch.close()


async def test_a_broker_that_lost_its_store_gets_streams_and_buckets_from_who_is_connected(
    server: NatsServer, bus: JetStreamBus
) -> None:
    await bus.put_row(TABLE, "old", b"1")
    await server.stop()
    shutil.rmtree(server.directory / "store")
    await server.start()
    async with asyncio.timeout(10):
        while await rows_or_none(bus) != {}:
            await asyncio.sleep(0.05)
    await bus.put_row(TABLE, "new", b"2")
    assert await bus.rows(TABLE) == {"new": b"2"}
    assert await bus.acquire("anything", "holder", ttl_s=5) > 0


async def test_a_store_that_was_lost_without_a_reconnect_is_read_anew_after_a_silence(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SILENT_S", 0.5)
    monkeypatch.setattr(tables, "_LOOK_S", 0.1)
    for number in range(5):
        await bus.put_row(TABLE, "old", b"%d" % number)
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows == {"old": b"4"})
    await bus.jetstream.delete_stream("KV_headrace_keys")
    await bus.ensure_stores(1)
    await bus.put_row(TABLE, "new", b"1")
    await eventually(lambda: seen.rows == {"new": b"1"}, within_s=3)
    await watch.close()


async def test_a_fault_while_a_table_is_read_does_not_end_its_watch(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.put_row(TABLE, "a", b"1")
    last_msg, calls = bus.jetstream.get_last_msg, 0

    async def fails_once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionResetError("cut under the client's hands")
        return await last_msg(*args, **options)

    monkeypatch.setattr(bus.jetstream, "get_last_msg", fails_once)
    seen = Watched()
    watch = await bus.watch_table(TABLE, seen.on_table, seen.on_row)
    await eventually(lambda: seen.rows == {"a": b"1"})
    await watch.close()


async def test_what_could_not_be_written_is_not_written_later(
    server: NatsServer, bus: JetStreamBus
) -> None:
    await bus.put_row(TABLE, "k", b"valid")
    await server.stop()
    await eventually(lambda: not bus.connected)
    for write in (bus.put_row(TABLE, "k", b"valid"), bus.delete_row(TABLE, "k")):
        async with asyncio.timeout(1):
            with pytest.raises(BusUnavailable):
                await write
    await server.start()
    await eventually(lambda: bus.connected)
    assert await bus.rows(TABLE) == {"k": b"valid"}
    await bus.delete_row(TABLE, "k")
    assert await bus.rows(TABLE) == {}


async def rows_or_none(bus: JetStreamBus) -> dict[str, bytes] | None:
    try:
        return await bus.rows(TABLE)
    except BusUnavailable:
        return None
