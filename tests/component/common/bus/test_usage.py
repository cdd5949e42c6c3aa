"""The stream of usage records: read by position, by readers that know of one another."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from headrace.bus import StoreRefused, subjects
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.usage import KEEPER, StoredUsage, UsagePosition
from headrace.testing.nats_server import NatsServer, nats_server
from helpers.eventually import eventually


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[JetStreamBus]:
    connected = await connect(server.url, name="usage")
    yield connected
    await connected.close()


async def publish(bus: JetStreamBus, first: int, count: int) -> None:
    for number in range(first, first + count):
        await bus.publish_usage(b"%d" % number)


async def read(
    bus: JetStreamBus, after: UsagePosition | None, *, max_messages: int = 1000
) -> list[StoredUsage]:
    return await bus.usage_after(after, max_messages=max_messages, timeout_s=0.0)


async def test_a_reader_gets_all_that_follows_its_position_in_order(bus: JetStreamBus) -> None:
    await publish(bus, 0, 100)
    found = await read(bus, None)
    assert [each.payload for each in found] == [b"%d" % n for n in range(100)]
    assert await read(bus, found[-1].position) == []
    assert await read(bus, found[39].position, max_messages=10) == found[40:50]
    assert await read(bus, found[98].position) == found[99:]


async def test_a_reader_that_is_at_the_end_gets_what_comes(bus: JetStreamBus) -> None:
    await publish(bus, 0, 1)
    (last,) = await read(bus, None)
    reading = asyncio.create_task(bus.usage_after(last.position, max_messages=5, timeout_s=20.0))
    await asyncio.sleep(0)
    await publish(bus, 1, 1)
    (found,) = await reading
    assert found.payload == b"1"


async def test_a_reader_that_keeps_up_reads_nothing_from_the_stream(
    bus: JetStreamBus, server: NatsServer
) -> None:
    publisher = await connect(server.url, name="publisher")
    await publish(publisher, 0, 3)
    at = (await read(bus, None))[-1].position
    reads: list[str] = []

    async def on_read(message: Msg) -> None:
        reads.append(message.subject)

    await publisher.client.subscribe("$JS.API.STREAM.MSG.GET.USAGE", cb=on_read)
    await publisher.client.flush()
    seen: list[bytes] = []
    publishing = asyncio.create_task(publish(publisher, 3, 200))
    while len(seen) < 200:
        found = await bus.usage_after(at, max_messages=7, timeout_s=20.0)
        assert 0 < len(found) <= 7
        seen += [each.payload for each in found]
        at = found[-1].position
    await publishing
    assert seen == [b"%d" % n for n in range(3, 203)]
    # The first calls may come before what was published is passed on; on a busy machine more do.
    assert len(reads) < 10
    await publisher.close()


async def test_a_reader_gets_what_the_broker_did_not_publish_and_a_version_before_is_updated(
    bus: JetStreamBus,
) -> None:
    js = bus.jetstream
    await publish(bus, 0, 2)
    found = await read(bus, None)
    config = (await js.stream_info("USAGE")).config
    config.republish = None
    await js.update_stream(config)
    reading = asyncio.create_task(
        bus.usage_after(found[-1].position, max_messages=5, timeout_s=20.0)
    )
    await publish(bus, 2, 1)
    (lost,) = await reading
    assert lost.payload == b"2"
    await bus.ensure_stores(1)
    republish = (await js.stream_info("USAGE")).config.republish
    assert republish is not None
    assert republish.dest == subjects.USAGE_STORED


async def test_equal_records_that_are_sent_again_are_stored_once(bus: JetStreamBus) -> None:
    await bus.publish_usage(b"a")
    await bus.publish_usage(b"a")
    await bus.publish_usage(b"b")
    assert [each.payload for each in await read(bus, None)] == [b"a", b"b"]


async def test_only_what_the_keeper_has_read_too_is_purged(bus: JetStreamBus) -> None:
    await publish(bus, 0, 10)
    found = await read(bus, None)
    await bus.purge_usage(found[7].position)
    assert await read(bus, None) == found
    await bus.put_usage_position(KEEPER, replace(found[4].position, stream="of a former stream"))
    await bus.purge_usage(found[7].position)
    assert await read(bus, None) == found
    await bus.put_usage_position(KEEPER, found[4].position)
    await bus.purge_usage(found[7].position)
    assert await read(bus, None) == found[5:]
    assert await read(bus, found[2].position, max_messages=2) == found[5:7]
    await bus.put_usage_position(KEEPER, found[9].position)
    await bus.purge_usage(found[7].position)
    assert await read(bus, found[8].position) == found[9:]


async def test_a_full_stream_refuses_and_keeps_what_it_has(bus: JetStreamBus) -> None:
    config: StreamConfig = (await bus.jetstream.stream_info("USAGE")).config
    config.max_bytes = 4096
    await bus.jetstream.update_stream(config)
    await bus.publish_usage(b"x" * 3000)
    with pytest.raises(StoreRefused, match="maximum bytes exceeded"):
        await bus.publish_usage(b"y" * 3000)
    state = await bus.usage_state()
    assert (state.messages, state.last.sequence, state.max_bytes) == (1, 1, 4096)
    assert 3000 < state.stored_bytes < 4096
    assert 0 < state.oldest_age_s < 60
    assert state.max_age_s == 7 * 24 * 3600


async def test_the_state_of_an_empty_stream(bus: JetStreamBus) -> None:
    state = await bus.usage_state()
    assert (state.messages, state.last.sequence, state.oldest_age_s) == (0, 0, 0.0)
    assert state.max_bytes == 4 << 30


async def test_a_reader_begins_again_where_the_stream_was_lost_and_made_again(
    bus: JetStreamBus,
) -> None:
    await publish(bus, 0, 10)
    found = await read(bus, None)
    await bus.jetstream.delete_stream("USAGE")
    await bus.ensure_stores(1)
    await publish(bus, 10, 2)
    again = await bus.usage_after(found[-1].position, max_messages=9, timeout_s=20.0)
    assert [each.payload for each in again] == [b"10", b"11"]
    assert again[0].position.stream != found[0].position.stream


async def test_a_restart_of_the_broker_changes_neither_positions_nor_the_source_of_requests(
    bus: JetStreamBus, server: NatsServer
) -> None:
    await publish(bus, 0, 3)
    found, source = await read(bus, None), await bus.request_sources()
    await server.stop()
    await server.start()
    await eventually(lambda: bus.reconnects == 1 and bus.connected)
    assert await read(bus, found[0].position) == found[1:]
    assert await bus.request_sources() == source


async def test_requests_of_a_stream_that_was_made_again_have_another_source(
    bus: JetStreamBus,
) -> None:
    before = await bus.request_sources()
    await bus.jetstream.delete_stream("REQUESTS")
    await bus.ensure_stores(1)
    assert await bus.request_sources() != before


async def put_back(server: NatsServer, store: Path, bus: JetStreamBus) -> None:
    """Start the server with an older copy of its store, as after a power failure."""
    reconnects = bus.reconnects
    await server.kill()
    shutil.rmtree(server.directory / "store")
    shutil.copytree(store, server.directory / "store")
    await server.start()
    await eventually(lambda: bus.reconnects > reconnects and bus.connected)


async def copy_store(server: NatsServer, bus: JetStreamBus, to: Path) -> None:
    """Copy the store of the server, which starts again."""
    reconnects = bus.reconnects
    await server.stop()
    shutil.copytree(server.directory / "store", to)
    await server.start()
    await eventually(lambda: bus.reconnects > reconnects and bus.connected)


@pytest.mark.parametrize("published_before_it_reads", [3, 40])
async def test_a_stream_that_a_power_failure_put_back_is_read_as_another_one(
    bus: JetStreamBus, server: NatsServer, tmp_path: Path, published_before_it_reads: int
) -> None:
    await publish(bus, 0, 5)
    await copy_store(server, bus, tmp_path / "copy")
    await publish(bus, 5, 5)
    found = await read(bus, None)
    await bus.put_usage_position(KEEPER, found[-1].position)
    await put_back(server, tmp_path / "copy", bus)
    other = await connect(server.url, name="leader")
    await publish(other, 100, published_before_it_reads)
    again = await read(bus, found[-1].position)
    expected = [*range(5), *range(100, 100 + published_before_it_reads)]
    assert [each.payload for each in again] == [b"%d" % n for n in expected]
    assert again[0].position.stream != found[0].position.stream
    # Another reader is at the same position of the same stream.
    assert await read(other, found[-1].position) == again
    assert await read(other, again[-2].position) == again[-1:]
    assert (await other.usage_state()).last == again[-1].position
    await bus.purge_usage(again[-1].position)
    assert await read(other, None) == again
    await bus.put_usage_position(KEEPER, again[-2].position)
    await bus.purge_usage(again[-1].position)
    assert await read(other, None) == again[-1:]
    await other.close()
