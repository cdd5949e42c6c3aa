"""The journal over a real nats-server: the fence of the quota keeper."""

from __future__ import annotations

import asyncio

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.journal import JournalContents, JournalMoved
from headrace.testing.nats_server import NatsServer


async def test_an_entry_is_appended_behind_the_one_that_its_writer_knows(bus: JetStreamBus) -> None:
    assert await bus.read_journal() == JournalContents([], 0)
    first = await bus.append_entry(b"1", after=0)
    second = await bus.append_entry(b"2", after=first)
    for late in (0, first, second + 1):
        with pytest.raises(JournalMoved, match=f"the last entry is not {late}"):
            await bus.append_entry(b"late", after=late)
    assert await bus.read_journal() == JournalContents([b"1", b"2"], second)


async def test_of_many_writers_one_appends(bus: JetStreamBus) -> None:
    results = await asyncio.gather(
        *(bus.append_entry(b"%d" % i, after=0) for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, int) for each in results) == 1
    assert len((await bus.read_journal()).entries) == 1


async def test_what_a_snapshot_replaces_is_deleted_and_sequences_go_on(bus: JetStreamBus) -> None:
    last = 0
    for i in range(200):
        last = await bus.append_entry(b"%d" % i, after=last)
    await bus.delete_entries(before=last - 99)
    contents = await bus.read_journal()
    assert (contents.entries, contents.last) == ([b"%d" % i for i in range(100, 200)], last)
    await bus.delete_entries(before=last + 1)
    assert await bus.read_journal() == JournalContents([], last)
    assert await bus.append_entry(b"next", after=last) == last + 1


async def test_what_was_appended_outlives_the_broker(nats: NatsServer, nats_url: str) -> None:
    bus = await connect(nats_url, name="before")
    last = await bus.append_entry(b"1", after=0)
    await nats.kill()
    with pytest.raises(BusUnavailable):
        await bus.append_entry(b"2", after=last)
    await nats.start()
    again = await connect(nats.url, name="after")
    contents = await again.read_journal()
    assert contents.entries[:1] == [b"1"]
    assert await again.append_entry(b"3", after=contents.last) == contents.last + 1
    await bus.close()
    await again.close()
