"""Each row of usage is in one statement, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from headrace_control.base.accounts.statement import Statement
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock
from helpers.statements import CENT, Recorder, at, close, go_to, statement
from helpers.usage_records import message_of, usage_record

pytestmark = pytest.mark.usefixtures("acme")


async def test_rows_that_come_while_a_month_is_closed_are_in_one_statement_each(
    store: Store, clock: TestClock, database_url: str
) -> None:
    go_to(clock, "2026-10-01")
    other = await Store.open(database_url, clock=clock)
    bits = 36  # Rows that cost more than a statement may hold are set aside.
    ended = {"arrival_ms": at("2026-09-30"), "end_ms": at("2026-09-30")}

    async def record_all() -> None:
        for n in range(bits):
            # Each row is one bit of the sum of tokens.
            row = usage_record(n + 1, output_tokens=1 << n, **ended)
            await other.usage.record([message_of(n + 1, row)])

    async def close_it(process: Store) -> Statement:
        while not (await statement(process, "2026-09")).lines:
            await asyncio.sleep(0)
        return await close(process, "2026-09")

    _, closed, same = await asyncio.gather(record_all(), close_it(store), close_it(other))
    assert closed == same
    go_to(clock, "2026-11-01")
    late = await close(store, "2026-10")
    tokens = [sum(line.output_tokens for line in each.lines) for each in (closed, late)]
    assert tokens[0] & tokens[1] == 0
    assert tokens[0] | tokens[1] == (1 << bits) - 1
    assert {line.corrects for line in late.lines} <= {"2026-09"}
    await other.close()


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_each_row_is_in_one_statement_and_each_correction(
    store: Store, clock: TestClock, record: Recorder, seed: int
) -> None:
    choose = random.Random(seed)
    account = await store.statements.account("acme")
    closed: list[Statement] = []
    rows = added_nanos = 0
    for _ in range(40):
        now = f"{clock.now:%Y-%m-%dT%H:%M}"
        match choose.choice(["now", "late", "wait", "close", "close", "zone", "correct"]):
            case "now":
                await record(now, output_tokens=1 << rows)
                rows += 1
            case "late":
                back = clock.now - timedelta(days=choose.randrange(60))
                await record(f"{back:%Y-%m-%dT%H:%M}", output_tokens=1 << rows)
                rows += 1
            case "wait":
                clock.advance(choose.randrange(1, 20) * 86_400)
            case "zone":
                zone = choose.choice(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
                edit = partial(replace, time_zone=zone)
                await store.tenants.update("acme", edit, by=ROOT)
                account = await store.statements.account("acme")
            case "close":
                closed += await store.statements.close_due(timedelta(days=choose.randrange(4)))
            case "correct":
                nanos = choose.randrange(1, 99) * CENT
                added_nanos += nanos
                await store.statements.correct(account, "2026-07", nanos, "a fee", by=ROOT)
    for _ in range(3):
        clock.advance(40 * 86_400)
        closed += await store.statements.close_due(timedelta())
    lines = [line for each in closed for line in each.lines]
    assert sum(line.requests for line in lines) == rows
    assert sum(line.output_tokens for line in lines) == (1 << rows) - 1
    found = (await store.usage_rows.page("acme")).items
    cost = sum(row["cost_nanos"] for row in found)
    assert sum(line.exact_nanos for line in lines) == cost + added_nanos
    assert [each.sequence for each in closed] == list(range(1, len(closed) + 1))
    months = [each.month for each in closed]
    assert months == sorted(set(months))
    for each in closed:
        assert await store.statements.get(account, each.month) == each
