"""Each record is one row, with its sums, whatever comes twice, is unreadable, or is missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.bus.usage import StoredUsage, UsagePosition
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace_control.base.accounts.usage import HOUR_MS
from headrace_control.base.records import Price
from headrace_control.store import Store
from headrace_control.store.database.billing_tables import usage_hour, usage_month
from headrace_control.store.database.opening import open_engine
from headrace_control.store.usage.ledger import Recorded
from headrace_control.store.usage.sums import UsageFilter
from helpers.control_store import ROOT
from helpers.usage_records import START_MS, STREAM, message_of, usage_message, usage_record

ALL = UsageFilter()


def read(message: StoredUsage) -> UsageRecord:
    return UsageRecords.FromString(message.payload).records[0]


async def test_a_record_is_a_row_and_a_part_of_its_hour(store: Store) -> None:
    await store.usage.record([usage_message(1), usage_message(2, key_id="k2", code=4)])
    assert await store.usage.position() == UsagePosition(STREAM, 2)
    rows = (await store.usage_rows.page("acme")).items
    columns = ("sequence", "key_id", "code")
    assert [tuple(row[name] for name in columns) for row in rows] == [(1, "k1", 0), (2, "k2", 4)]
    sums = await store.usage_sums.sums(ALL, ("key_id",))
    totals = ("key_id", "requests", "input_tokens", "cached_input_tokens", "output_tokens")
    expected = [("k1", 1, 10, 4, 5), ("k2", 1, 10, 4, 5)]
    assert [tuple(each[name] for name in totals) for each in sums] == expected


async def test_a_record_that_comes_twice_counts_once(store: Store) -> None:
    first = [usage_message(1, 7), usage_message(2, 7), usage_message(3, 8)]
    assert await store.usage.record(first) == Recorded(rows=2, repeated=1)
    # Behind the position, and before it, as a process that was active a moment longer sends it.
    assert await store.usage.record([usage_message(4, 7)]) == Recorded(repeated=1)
    assert await store.usage.record(first) == Recorded()
    assert await store.usage.position() == UsagePosition(STREAM, 4)
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [2]


async def test_the_same_sequence_of_another_source_is_another_request(store: Store) -> None:
    await store.usage.record([usage_message(1, 7), usage_message(2, 7, source="requests:2")])
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [2]


async def test_a_request_whose_sequence_was_another_ones_is_a_row_of_its_own(store: Store) -> None:
    """A broker that lost its power has forgotten a request, and given its sequence to another."""
    await store.usage.record([usage_message(1, 7)])
    others = [
        usage_message(2, 7, request_id="another"),
        usage_message(3, 7, request_id="req-7", arrival_ms=START_MS + 1),
        usage_message(4, 7, request_id="another"),
        usage_message(5, 7),
    ]
    assert await store.usage.record(others) == Recorded(rows=2, repeated=2, renamed=2)
    again = [replace(each, position=UsagePosition("later", 1)) for each in others[:1]]
    assert await store.usage.record(again) == Recorded(repeated=1)
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [3]
    rows = await store.usage.rows_of([read(each) for each in others])
    assert [row and row["request_id"] for row in rows] == ["another", "req-7", "another", "req-7"]
    assert len({row and row["source"] for row in rows}) == 3
    (row,) = await store.usage.rows_of([usage_record(7, request_id="a third one")])
    assert row is None


async def test_the_dearest_records_are_rows_and_their_sums_stay_numbers(
    store: Store, database_url: str
) -> None:
    dearest = 10**12
    await store.prices.create(Price("dear", "USD", None, dearest, dearest, dearest), by=ROOT)
    fields: dict[str, Any] = {"model": "dear", "input_tokens": 50_000, "cached_input_tokens": 0}
    records = [usage_record(n, **fields, output_tokens=50_000) for n in range(1, 201)]
    too_dear = usage_record(201, **fields, output_tokens=50_001)
    for position, some in enumerate((records[:100], records[100:], [too_dear]), 1):
        await store.usage.record([message_of(position, *some)])
    (kept,) = await store.usage.unreadable()
    assert "at most 100000000000000000 are possible" in kept.reason
    row = (await store.usage_rows.page("acme")).items[0]
    assert row["cost_nanos"] == 10**17
    engine = open_engine(database_url)
    async with engine.connect() as connection:
        month = await connection.scalar(sa.select(usage_month.c.cost_nanos))
        hour = (await connection.execute(sa.select(usage_hour))).one()
    await engine.dispose()
    assert (type(month), month) == (int, 2**63 - 1)
    assert (hour.requests, hour.output_tokens) == (200, 200 * 50_000)
    assert (type(hour.output_cost_nanos), hour.output_cost_nanos) == (int, 2**63 - 1)


async def test_two_processes_that_store_the_same_at_once_store_it_once(
    database_url: str, store: Store
) -> None:
    other = await Store.open(database_url)
    messages = [usage_message(n) for n in range(1, 101)]
    parts = [messages[:60], messages[40:], messages]
    done = await asyncio.gather(
        *(each.usage.record(part) for part in parts for each in (store, other))
    )
    assert sum(each.rows for each in done) == 100
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [100]
    await other.close()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (StoredUsage(UsagePosition(STREAM, 2), b"\xff\xff"), "holds no usage records"),
        (usage_message(2, tenant=""), "tenant is empty"),
        (usage_message(2, output_tokens=2**41), "output_tokens is 2199023255552"),
        (usage_message(2, cached_input_tokens=11), "more than input_tokens"),
        (usage_message(2, end_ms=0), "no time"),
        (usage_message(2, model="m" * 257), "257 characters"),
    ],
)
async def test_an_unreadable_record_is_kept_and_blocks_nothing(
    store: Store, message: StoredUsage, reason: str
) -> None:
    done = await store.usage.record([usage_message(1), message, usage_message(3)])
    assert done == Recorded(rows=2, unreadable=1)
    (kept,) = await store.usage.unreadable()
    assert kept.position.sequence == 2
    assert kept.record in message.payload
    assert reason in kept.reason
    assert await store.usage.position() == UsagePosition(STREAM, 3)


async def test_missing_positions_are_noted(store: Store) -> None:
    await store.usage.record([usage_message(1), usage_message(2)])
    assert (await store.usage.record([usage_message(5), usage_message(7)])).missing == 3
    assert await store.usage.gaps() == ((3, 4), (6, 6))


async def test_a_stream_that_was_made_anew_is_stored_from_its_beginning(store: Store) -> None:
    await store.usage.record([usage_message(1), usage_message(2)])
    repeated, new = usage_record(2), usage_record(2, source="requests:2")
    renewed = [message_of(5, repeated, stream="later"), message_of(6, new, stream="later")]
    assert await store.usage.record(renewed) == Recorded(rows=1, repeated=1)
    assert await store.usage.position() == UsagePosition("later", 6)


async def test_records_that_were_published_together_are_rows_of_their_own(store: Store) -> None:
    assert await store.usage.position() is None
    together = message_of(1, usage_record(7), usage_record(8, tenant=""), usage_record(9))
    assert await store.usage.record([together]) == Recorded(rows=2, unreadable=1)


async def test_hours_are_those_of_the_end_in_utc(store: Store) -> None:
    hour = START_MS // HOUR_MS * HOUR_MS
    ends = [hour - 1, hour, hour + HOUR_MS - 1, hour + HOUR_MS]
    await store.usage.record([usage_message(n, end_ms=ms) for n, ms in enumerate(ends, 1)])
    sums = await store.usage_sums.sums(ALL, every_ms=HOUR_MS)
    assert [(each["begin_ms"], each["requests"]) for each in sums] == [
        (hour - HOUR_MS, 1),
        (hour, 2),
        (hour + HOUR_MS, 1),
    ]
