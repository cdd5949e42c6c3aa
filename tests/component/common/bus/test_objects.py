"""Objects over a real nats-server: put and read in pieces, whole or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from random import Random

import nats
import pytest

from headrace.bus import StoreRefused
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.objects import ObjectDamaged

CHUNK_BYTES = 256 * 1024


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(bus: JetStreamBus, name: str) -> bytes:
    return b"".join([piece async for piece in bus.get_object(name)])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1])
@pytest.mark.parametrize("piece", [1000, CHUNK_BYTES, 700_001])
async def test_an_object_is_read_as_it_was_put(bus: JetStreamBus, size: int, piece: int) -> None:
    data = Random(size).randbytes(size)
    stored = await bus.put_object("file-1", pieces_of(data, piece))
    assert stored.bytes == size
    assert stored.sha256 == sha256(data).hexdigest()
    assert await read(bus, "file-1") == data


async def test_two_objects_that_are_put_at_once_do_not_mix(bus: JetStreamBus) -> None:
    first, second = b"a" * CHUNK_BYTES * 2, b"b" * CHUNK_BYTES * 2

    async def alternating() -> AsyncIterator[bytes]:
        yield first[:CHUNK_BYTES]
        await bus.put_object("file-2", pieces_of(second, 100_000))
        yield first[CHUNK_BYTES:]

    await bus.put_object("file-1", alternating())
    assert await read(bus, "file-1") == first
    assert await read(bus, "file-2") == second


async def test_other_clients_of_the_broker_read_it_as_an_object(
    bus: JetStreamBus, nats_url: str
) -> None:
    data = Random(1).randbytes(CHUNK_BYTES + 5)
    await bus.put_object("file-1", pieces_of(data, 4096))
    client = await nats.connect(nats_url)
    store = await client.jetstream().object_store("headrace_files")
    assert (await store.get("file-1")).data == data
    await client.close()


async def test_there_is_no_object_after_it_was_deleted(bus: JetStreamBus) -> None:
    await bus.put_object("file-1", pieces_of(b"x" * 300_000, 1000))
    await bus.put_object("file-2", pieces_of(b"", 1))
    assert await bus.object_names() == {"file-1", "file-2"}
    for name in ("file-1", "file-1", "file-3"):
        await bus.delete_object(name)
    assert await bus.object_names() == {"file-2"}
    with pytest.raises(KeyError):
        await read(bus, "file-1")


async def test_an_object_that_is_deleted_while_it_is_read_is_not_found(bus: JetStreamBus) -> None:
    await bus.put_object("file-1", pieces_of(b"x" * 4 * CHUNK_BYTES, CHUNK_BYTES))
    reading = bus.get_object("file-1")
    await anext(reading)
    await bus.delete_object("file-1")
    with pytest.raises(KeyError):
        await anext(reading)


async def test_an_object_that_breaks_off_leaves_nothing(bus: JetStreamBus) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3 * CHUNK_BYTES
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await bus.put_object("file-1", broken())
    assert await bus.object_names() == frozenset()


async def test_what_a_killed_process_has_put_is_no_object_and_can_be_deleted(
    bus: JetStreamBus, nats_url: str
) -> None:
    dying = await connect(nats_url, name="dying")

    async def until_killed() -> AsyncIterator[bytes]:
        yield b"x" * 3 * CHUNK_BYTES
        await dying.close()
        yield b"y" * CHUNK_BYTES

    with pytest.raises(Exception, match="closed"):
        await dying.put_object("file-1", until_killed())
    with pytest.raises(KeyError):
        await read(bus, "file-1")
    assert await bus.object_names() == {"file-1"}
    await bus.delete_object("file-1")
    assert await bus.object_names() == frozenset()


@pytest.mark.parametrize("chunk", [1, 2, 3])
async def test_a_lost_chunk_is_an_error_before_the_last_piece_is_yielded(
    bus: JetStreamBus, nats_url: str, chunk: int
) -> None:
    data = Random(1).randbytes(3 * CHUNK_BYTES)
    await bus.put_object("file-1", pieces_of(data, CHUNK_BYTES))
    client = await nats.connect(nats_url)
    await client.jetstream().delete_msg("OBJ_headrace_files", chunk)
    await client.close()
    seen = bytearray()

    async def reading() -> None:
        async for piece in bus.get_object("file-1"):
            seen.extend(piece)

    with pytest.raises(ObjectDamaged, match="one is lost"):
        await reading()
    assert len(seen) < len(data)


async def test_bytes_that_were_changed_are_an_error(bus: JetStreamBus, nats_url: str) -> None:
    await bus.put_object("file-1", pieces_of(b"right", 5))
    client = await nats.connect(nats_url)
    js = client.jetstream()
    await js.publish("$O.headrace_files.C.file-1", b"wrong")
    await js.delete_msg("OBJ_headrace_files", 1)
    await client.close()
    with pytest.raises(ObjectDamaged, match="not those that were put"):
        await read(bus, "file-1")


async def test_a_full_store_refuses_and_keeps_nothing(bus: JetStreamBus, nats_url: str) -> None:
    client = await nats.connect(nats_url)
    js = client.jetstream()
    config = (await js.stream_info("OBJ_headrace_files")).config
    await js.update_stream(config, max_bytes=4 * CHUNK_BYTES)
    await client.close()
    with pytest.raises(StoreRefused, match="maximum bytes exceeded"):
        await bus.put_object("file-1", pieces_of(b"x" * 8 * CHUNK_BYTES, 1000))
    assert await bus.object_names() == frozenset()
