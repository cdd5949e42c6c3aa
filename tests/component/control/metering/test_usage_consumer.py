"""Usage is stored once, whatever dies and whatever comes twice, and blocks at nothing."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.bus.usage import KEEPER, StoredUsage
from headrace.clock import SystemClock
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace_control.metering.usage_consumer import UsageConsumer
from headrace_control.store import PageOptions, Store
from headrace_control.store.usage.ledger import Recorded
from headrace_control.store.usage.sums import UsageFilter
from helpers.usage_records import START_MS, usage_record

TESTS = Path(__file__).parents[3]
RECORDS = 3000
TOGETHER = 1
"""More than 5 * AT_ONCE messages, so that there are more than five commits."""
ALL = UsageFilter()


def some_records() -> list[UsageRecord]:
    chance = random.Random(7)
    return [
        usage_record(
            n,
            tenant=chance.choice(["acme", "other"]),
            key_id=chance.choice(["k1", "k2", ""]),
            input_tokens=chance.randint(10, 2000),
            output_tokens=chance.randint(0, 800),
            end_ms=START_MS + chance.randint(0, 3 * 3_600_000),
        )
        for n in range(1, RECORDS + 1)
    ]


async def publish(bus: JetStreamBus, records: Sequence[UsageRecord]) -> None:
    """Publish records as leaders do, one in ten a second time in other company."""
    chance = random.Random(8)
    doubled = [each for each in records if chance.random() < 0.1]
    messages = [records[i : i + TOGETHER] for i in range(0, len(records), TOGETHER)]
    for each in doubled:
        messages.insert(chance.randint(0, len(messages)), [each])
    for at in range(0, len(messages), 50):
        payloads = (UsageRecords(records=some) for some in messages[at : at + 50])
        await asyncio.gather(*(bus.publish_usage(p.SerializeToString()) for p in payloads))


async def consume(nats_url: str, database_url: str, end: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helpers.consumer_process", nats_url, database_url, end),
        cwd=TESTS,
    )
    async with asyncio.timeout(60):
        return await process.wait()


async def stored(consumer: UsageConsumer) -> None:
    while await consumer.step(wait_s=0):
        pass


async def test_kill_9_after_the_commit_and_doubled_records_change_no_sum(
    bus: JetStreamBus, nats_url: str, database_url: str, store: Store
) -> None:
    records = some_records()
    await publish(bus, records)
    for _ in range(5):
        assert await consume(nats_url, database_url, "kill") == -signal.SIGKILL
    assert await consume(nats_url, database_url, "finish") == 0
    (sums,) = await store.usage_sums.sums(ALL)
    rows = [row async for row in every_row(store)]
    assert sums["requests"] == len(rows) == RECORDS
    for name in ("input_tokens", "cached_input_tokens", "output_tokens"):
        assert sums[name] == sum(row[name] for row in rows)
        assert sums[name] == sum(getattr(each, name) for each in records)
    by_tenant = await store.usage_sums.sums(ALL, ("tenant",))
    assert [each["requests"] for each in by_tenant] == [
        sum(each.tenant == tenant for each in records) for tenant in ("acme", "other")
    ]


async def every_row(store: Store) -> AsyncIterator[dict[str, Any]]:
    token = ""
    while True:
        page = await store.usage_rows.page(options=PageOptions(1000, token))
        for row in page.items:
            yield row
        if not (token := page.next_page_token):
            return


async def test_what_both_readers_have_is_purged(bus: JetStreamBus, store: Store) -> None:
    for part in range(3):
        await bus.publish_usage(UsageRecords(records=[usage_record(part)]).SerializeToString())
    await stored(UsageConsumer(bus, store.usage, SystemClock()))
    assert (await bus.usage_state()).messages == 3
    position = await store.usage.position()
    assert position is not None
    await bus.put_usage_position(KEEPER, position)
    await UsageConsumer(bus, store.usage, SystemClock()).step(wait_s=0)
    assert (await bus.usage_state()).messages == 0
    await bus.publish_usage(UsageRecords(records=[usage_record(9)]).SerializeToString())
    await stored(UsageConsumer(bus, store.usage, SystemClock()))
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [4]
    assert await store.usage.gaps() == ()


class Picky:
    """The store's ledger, with a database that refuses the record of one request."""

    def __init__(self, store: Store) -> None:
        self.position, self.set_aside = store.usage.position, store.usage.set_aside
        self._ledger = store.usage

    async def record(self, messages: Sequence[StoredUsage]) -> Recorded:
        for each in messages:
            if b"req-13" in each.payload:
                raise ValueError("cannot be stored")
        return await self._ledger.record(messages)


async def test_what_the_database_refuses_blocks_no_other_record(
    bus: JetStreamBus, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(10, 20):
        await bus.publish_usage(UsageRecords(records=[usage_record(n)]).SerializeToString())
    await stored(UsageConsumer(bus, Picky(store), SystemClock()))
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [9]
    (kept,) = await store.usage.unreadable()
    assert kept.reason == "ValueError when it was stored"
    assert "usage.refused" in caplog.text


class Slow:
    """The store's ledger, with a database that is done in time with three messages at most."""

    def __init__(self, store: Store) -> None:
        self.position, self.set_aside = store.usage.position, store.usage.set_aside
        self._ledger = store.usage

    async def record(self, messages: Sequence[StoredUsage]) -> Recorded:
        if len(messages) > 3:
            raise TimeoutError
        return await self._ledger.record(messages)


async def test_a_database_that_is_slow_gets_fewer_messages_at_a_time(
    bus: JetStreamBus, store: Store
) -> None:
    for n in range(20):
        await bus.publish_usage(UsageRecords(records=[usage_record(n)]).SerializeToString())
    consumer = UsageConsumer(bus, Slow(store), SystemClock())
    consuming = asyncio.create_task(consumer.run())
    async with asyncio.timeout(20):
        await consumer.caught_up.wait()
    consuming.cancel()
    await asyncio.wait({consuming})
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [20]
