"""A line of a batch is billed once: in rows, sums, months, statements and checks."""

from __future__ import annotations

import asyncio
import random

import pytest
import sqlalchemy as sa

from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace_control.base.accounts.usage import HOUR_MS
from headrace_control.base.records import Price, Tenant
from headrace_control.store import PageOptions, Store
from headrace_control.store.database.billing_tables import usage
from headrace_control.store.database.opening import open_engine
from headrace_control.store.usage.sums import NO_END_MS, UsageFilter
from helpers.control_store import ROOT
from helpers.usage_records import START_MS, message_of, usage_record

ALL = UsageFilter()
CODES = (0, 0, 8, 14)


def runs(lines: int, chance: random.Random) -> list[UsageRecord]:
    """Return runs of lines that each have a regular end, in any order."""
    records, sequence = [], 0
    for line in range(1, lines + 1):
        codes = [0, *chance.choices(CODES, k=chance.randint(0, 3))]
        for code in chance.sample(codes, len(codes)):
            sequence += 1
            name = f"batch_7_{line}{chance.choice(['', '_1'])}"
            of = {"batch_id": "batch_7", "batch_line": line, "request_id": name, "code": code}
            end_ms = START_MS + chance.randint(0, 2 * HOUR_MS)
            records.append(usage_record(sequence, end_ms=end_ms, **of))
    return chance.sample(records, len(records))


@pytest.mark.parametrize("seed", range(4))
async def test_each_line_is_billed_once_in_any_order(store: Store, seed: int) -> None:
    chance, lines = random.Random(seed), 20
    await store.tenants.create(Tenant("acme", "Acme"), by=ROOT)
    await store.prices.create(Price("valley", "USD", None, 7, 3, 11), by=ROOT)
    records, position = runs(lines, chance), 0
    while records:
        position, count = position + 1, chance.randint(1, 9)
        await store.usage.record([message_of(position, *records[:count])])
        records = records[count:]
    rows = (await store.usage_rows.page(options=PageOptions(1000))).items
    billed = [row for row in rows if row["billed"]]
    assert sorted(row["batch_line"] for row in billed) == list(range(1, lines + 1))
    assert len(rows) > lines
    assert not any(row["cost_nanos"] for row in rows if not row["billed"])
    (whole,) = await store.usage_sums.sums(ALL)
    (exact,) = await store.usage_sums.sums(UsageFilter(0, NO_END_MS - 1), every_ms=60_000 * 10**6)
    cost = lines * (6 * 7 + 4 * 3 + 5 * 11)
    for sums in (whole, exact):
        figures = (sums["requests"], sums["output_tokens"], sums["cost_nanos"])
        assert figures == (lines, 5 * lines, cost)
    assert await store.usage_checks.differences(0, NO_END_MS) == []
    assert await store.usage_checks.count(0, NO_END_MS) == len(rows)
    account = await store.statements.account("acme")
    statement = await store.statements.get(account, "2026-09")
    assert sum(line.requests for line in statement.lines) == lines
    assert sum(line.output_tokens for line in statement.lines) == 5 * lines


async def test_prompts_of_a_line_are_billed_one_by_one(store: Store) -> None:
    of = {"batch_id": "batch_7", "batch_line": 3}
    names = ("batch_7_3-0", "batch_7_3-1", "batch_7_3-0", "batch_7_3-1", "batch_7_3-2")
    records = [usage_record(n, request_id=name, **of) for n, name in enumerate(names)]
    await store.usage.record([message_of(1, *records)])
    rows = (await store.usage_rows.page()).items
    assert [row["billed"] for row in rows] == [True, True, False, False, True]


async def test_a_line_without_a_regular_end_is_recorded_and_not_billed(store: Store) -> None:
    of = {"batch_id": "batch_7", "batch_line": 3, "code": 4}
    await store.usage.record([message_of(1, usage_record(1, request_id="batch_7_3", **of))])
    (row,) = (await store.usage_rows.page()).items
    assert (row["billed"], row["output_tokens"], row["cost_nanos"]) == (False, 5, 0)
    assert await store.usage_sums.sums(ALL) == []


async def test_two_processes_bill_a_line_once(database_url: str, store: Store) -> None:
    other = await Store.open(database_url)
    of = {"batch_id": "batch_7", "batch_line": 3, "request_id": "batch_7_3"}
    messages = [message_of(n, usage_record(n, **of)) for n in range(1, 21)]
    parts = [messages[:12], messages[8:], messages]
    await asyncio.gather(*(each.usage.record(part) for part in parts for each in (store, other)))
    assert [each["requests"] for each in await store.usage_sums.sums(ALL)] == [1]
    await other.close()


async def test_the_database_refuses_a_second_bill(database_url: str, store: Store) -> None:
    of = {"batch_id": "batch_7", "batch_line": 3, "request_id": "batch_7_3"}
    await store.usage.record([message_of(1, usage_record(1, **of), usage_record(2, **of))])
    engine = open_engine(database_url)
    with pytest.raises(sa.exc.IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(sa.update(usage).values(billed=True, billed_part=0))
    await engine.dispose()
