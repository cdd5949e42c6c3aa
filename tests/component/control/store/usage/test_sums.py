"""Sums are those of the rows, for every range of time and by whatever they are grouped."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.errors import InvalidRequest
from headrace.internal.v1.usage_pb2 import UsageKind
from headrace_control.base.accounts.usage import HOUR_MS
from headrace_control.base.records import Price
from headrace_control.store import PageOptions, Store
from headrace_control.store.database.opening import open_engine
from headrace_control.store.usage import sums
from headrace_control.store.usage.sums import NO_END_MS, UsageFilter
from helpers.control_store import ROOT
from helpers.usage_records import START_MS, message_of, usage_record

MINUTE_MS = 60_000
COLUMNS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_nanos")


async def fill(store: Store, chance: random.Random) -> list[dict[str, Any]]:
    await store.prices.create(Price("a", "USD", None, 7, 3, 11), by=ROOT)
    records = [
        usage_record(
            n,
            tenant=chance.choice(["acme", "other"]),
            model=chance.choice(["a", "b"]),
            key_id=chance.choice(["", "k"]),
            batch_id=chance.choice(["", "batch_1"]),
            kind=chance.choice([UsageKind.USAGE_KIND_COMPLETIONS, UsageKind.USAGE_KIND_EMBEDDINGS]),
            output_tokens=chance.randint(0, 900),
            end_ms=START_MS + chance.randint(0, 5 * HOUR_MS),
        )
        for n in range(300)
    ]
    await store.usage.record([message_of(1, *records)])
    return list((await store.usage_rows.page(options=PageOptions(1000))).items)


def expected(
    rows: list[dict[str, Any]], which: UsageFilter, by: tuple[str, ...], every_ms: int
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Sum the rows one by one."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        is_batch = bool(row["batch_id"])
        if (
            not which.since_ms <= row["end_ms"] < which.until_ms
            or (which.tenants and row["tenant"] not in which.tenants)
            or (which.models and row["model"] not in which.models)
            or (which.batch is not None and is_batch is not which.batch)
        ):
            continue
        begin = row["end_ms"] - row["end_ms"] % every_ms if every_ms else 0
        key = (begin, *(is_batch if name == "batch" else row[name] for name in by))
        found = sums.setdefault(key, [0] * (1 + len(COLUMNS)))
        for i, value in enumerate((1, *(row[name] for name in COLUMNS))):
            found[i] += value
    return {key: tuple(value) for key, value in sums.items()}


async def test_sums_of_any_range_are_those_of_its_rows(store: Store) -> None:
    chance = random.Random(5)
    rows = await fill(store, chance)
    assert len(rows) == 300
    for _ in range(40):
        begin = START_MS + chance.randint(-HOUR_MS, 5 * HOUR_MS)
        if chance.random() < 0.3:
            begin -= begin % HOUR_MS
        end = chance.choice([NO_END_MS, begin + chance.randint(1, 4 * HOUR_MS), begin + HOUR_MS])
        which = UsageFilter(
            begin,
            end,
            tenants=chance.choice([(), ("acme",)]),
            models=chance.choice([(), ("a",), ("a", "b")]),
            batch=chance.choice([None, True, False]),
        )
        by = tuple(chance.sample(["tenant", "model", "key_id", "batch", "kind"], 2))
        every_ms = chance.choice([0, MINUTE_MS, HOUR_MS, 24 * HOUR_MS])
        found = {
            (each["begin_ms"], *(each[name] for name in by)): tuple(
                each[name] for name in ("requests", *COLUMNS)
            )
            for each in await store.usage_sums.sums(which, by, every_ms=every_ms)
        }
        assert found == expected(rows, which, by, every_ms)


async def test_sums_that_are_too_many_to_be_held_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "MAX_SUMS", 2)
    records = [usage_record(n, end_ms=START_MS + n * MINUTE_MS) for n in range(3)]
    await store.usage.record([message_of(1, *records)])
    assert len(await store.usage_sums.sums(UsageFilter())) == 1
    with pytest.raises(InvalidRequest, match="more than 2 sums: ask for less time"):
        await store.usage_sums.sums(UsageFilter(), every_ms=MINUTE_MS)


async def test_what_a_key_has_used_today_is_found_by_an_index(
    store: Store, database_url: str
) -> None:
    """However much others have used: `GET /v2/key` reads it."""
    await store.usage.record(
        [message_of(1, *(usage_record(n, tenant=f"t{n}") for n in range(2000)))]
    )
    which = UsageFilter(since_ms=START_MS - 1, tenants=["t7"], keys=["k1"])
    is_postgres = database_url.startswith("postgresql")
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ANALYZE"))
        query = sums.facts_of(which, 0).compile(
            connection.sync_connection, compile_kwargs={"literal_binds": True}
        )
        explain = "EXPLAIN" if is_postgres else "EXPLAIN QUERY PLAN"
        plan = [str(row) for row in await connection.execute(sa.text(f"{explain} {query}"))]
    await engine.dispose()
    assert not [line for line in plan if "SCAN usage" in line or "Seq Scan" in line], plan
