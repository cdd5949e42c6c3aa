"""A broker's streams come back from their snapshots as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bus import BusError
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.stores import BACKED_UP
from headrace.testing.nats_server import nats_server


async def test_an_empty_broker_gets_what_another_one_had(bus: JetStreamBus, tmp_path: Path) -> None:
    payloads = [f"request {n}".encode() * 1000 for n in range(300)]
    for number, payload in enumerate(payloads):
        await bus.submit("chat", "bulk", payload, message_id=f"m{number}")
    await bus.put_result("r1", b"result", kept_s=3600)
    await bus.store_dead_letter("chat", b"letter")
    await bus.put_card("chat", b"card")
    await bus.put_tokenizer("digest", b"bundle" * 100_000)
    epoch = await bus.acquire("control", "me", ttl_s=3600)
    saved = {}
    for stream in BACKED_UP:
        parts: list[bytes] = []
        saved[stream] = (await bus.save_stream(stream, parts.append), parts)
    before = await bus.stored()
    async with nats_server(tmp_path / "other") as server:
        other = await connect(server.url, name="other", replicas=None)
        assert await other.stored() == {}
        for stream, (description, parts) in saved.items():
            await other.load_stream(stream, description, parts)
        assert await other.stored() == before
        lane = await other.take_over("chat", "bulk")
        found = await lane.pull(max_messages=500, timeout_s=5)
        assert [message.payload for message in found] == payloads
        assert await other.get_result("r1") == b"result"
        assert [letter.letter for letter in await other.dead_letters(limit=5)] == [b"letter"]
        assert await other.get_card("chat") == b"card"
        assert await other.get_tokenizer("digest") == b"bundle" * 100_000
        await other.close()
    assert before["REQUESTS"] == 300
    assert epoch > 0


async def test_restored_requests_keep_their_source_and_later_ones_have_another(
    bus: JetStreamBus,
) -> None:
    """What had ended since the backup is settled again, as the same row; sequences are in use
    again."""
    for number in range(3):
        await bus.submit("chat", "bulk", b"request", message_id=f"m{number}")
    first = await bus.request_sources()
    assert {first.of(number) for number in range(1, 9)} == {first.current}
    parts: list[bytes] = []
    description = await bus.save_stream("REQUESTS", parts.append)
    await bus.submit("chat", "bulk", b"after the backup", message_id="m3")
    found = []
    for _ in range(2):
        await bus.load_stream("REQUESTS", description, parts)
        restored = await bus.request_sources()
        assert [restored.of(number) for number in (1, 2, 3)] == [first.current] * 3
        assert await bus.submit("chat", "bulk", b"new", message_id="m4") == 4
        found.append(restored.of(4))
    assert len({first.current, *found}) == 3
    await bus.submit("chat", "bulk", b"new", message_id="m5")
    again: list[bytes] = []
    second = await bus.save_stream("REQUESTS", again.append)
    await bus.load_stream("REQUESTS", second, again)
    twice = await bus.request_sources()
    assert [twice.of(number) for number in (3, 4, 5)] == [first.current, found[-1], found[-1]]
    assert twice.of(6) == twice.current


async def test_a_damaged_snapshot_is_refused(bus: JetStreamBus) -> None:
    await bus.submit("chat", "bulk", b"request", message_id="m1")
    parts: list[bytes] = []
    description = await bus.save_stream("REQUESTS", parts.append)
    with pytest.raises(BusError, match="REQUESTS"):
        await bus.load_stream("REQUESTS", description, [b"x" * 1000])
    await bus.load_stream("REQUESTS", description, parts)
    assert (await bus.stored())["REQUESTS"] == 1


async def test_a_stream_that_is_not_there_has_no_snapshot(bus: JetStreamBus) -> None:
    with pytest.raises(BusError, match="not found"):
        await bus.save_stream("NONE", lambda _: None)
