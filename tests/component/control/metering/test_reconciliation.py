"""Every difference between rows, their sums and the broker's records is named, and repaired."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headrace.billing.months import month_at
from headrace.bus.jetstream import JetStreamBus
from headrace.clock import SystemClock
from headrace.internal.v1.usage_pb2 import TenantTotals, UsageRecord, UsageRecords
from headrace_control.base.records import Tenant
from headrace_control.metering.reconciliation import Comparison, Reconciliation
from headrace_control.metering.usage_consumer import UsageConsumer
from headrace_control.store import Store
from headrace_control.store.database.billing_tables import statements, usage, usage_hour
from headrace_control.store.database.opening import open_engine
from headrace_control.store.usage.sums import NO_END_MS, UsageFilter
from helpers.control_store import ROOT
from helpers.usage_records import START_MS, message_of, usage_record

HOUR_MS = 3_600_000


async def stored(bus: JetStreamBus, store: Store, *records: UsageRecord) -> None:
    for each in records:
        await bus.publish_usage(UsageRecords(records=[each]).SerializeToString())
    consumer = UsageConsumer(bus, store.usage, SystemClock())
    while await consumer.step(wait_s=0):
        pass


async def spoil(database_url: str, *changes: sa.Executable) -> None:
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        for change in changes:
            await connection.execute(change)
    await engine.dispose()


async def compare(
    bus: JetStreamBus, store: Store, *, since_ms: int = 0, repair: bool = False
) -> Comparison:
    reconciliation = Reconciliation(bus, store.usage, store.usage_checks, store.statements)
    return await reconciliation.compare(since_ms, NO_END_MS, repair=repair)


def kinds(found: Comparison) -> list[tuple[str, str, bool]]:
    return sorted((each.kind, each.tenant, each.repaired) for each in found.differences)


def some() -> list[UsageRecord]:
    later: dict[str, Any] = {"tenant": "other", "end_ms": START_MS + HOUR_MS}
    return [usage_record(1), usage_record(2), usage_record(3, **later)]


async def test_whole_accounts_have_no_difference(bus: JetStreamBus, store: Store) -> None:
    await stored(bus, store, *some())
    found = await compare(bus, store)
    assert (found.rows, found.records, found.differences) == (3, 3, [])


async def test_sums_are_made_again_from_rows(
    bus: JetStreamBus, store: Store, database_url: str
) -> None:
    await stored(bus, store, *some())
    expected = await store.usage_sums.sums(UsageFilter(), ("tenant",))
    more = sa.update(usage_hour).values(requests=usage_hour.c.requests + 5)
    await spoil(
        database_url,
        more.where(usage_hour.c.tenant == "acme"),
        sa.delete(usage_hour).where(usage_hour.c.tenant == "other"),
    )
    found = await compare(bus, store)
    assert kinds(found) == [("sums", "acme", False), ("sums", "other", False)]
    assert "the rows have -5 requests" in found.differences[0].detail
    assert kinds(await compare(bus, store, since_ms=START_MS + HOUR_MS)) == [
        ("sums", "other", False)
    ]
    await compare(bus, store, repair=True)
    assert kinds(await compare(bus, store)) == []
    assert await store.usage_sums.sums(UsageFilter(), ("tenant",)) == expected


async def test_a_record_without_a_row_is_stored(
    bus: JetStreamBus, store: Store, database_url: str
) -> None:
    await stored(bus, store, *some())
    await spoil(
        database_url,
        sa.delete(usage).where(usage.c.sequence == 2),
        sa.update(usage).where(usage.c.sequence == 1).values(output_tokens=6),
    )
    found = await compare(bus, store)
    assert kinds(found) == [
        ("changed", "acme", False),
        ("missing", "acme", False),
        ("sums", "acme", False),
    ]
    details = "; ".join(each.detail for each in found.differences)
    assert "output_tokens is 6 in the row and 5 in the record" in details
    assert "requests:1 2, request req-2: 5 output tokens have no row" in details
    repaired = await compare(bus, store, repair=True)
    assert kinds(repaired) == [
        ("changed", "acme", False),
        ("missing", "acme", True),
        ("sums", "acme", True),
    ]
    assert kinds(await compare(bus, store)) == [("changed", "acme", False)]


async def test_what_was_unreadable_or_gone_is_named(
    bus: JetStreamBus, store: Store, database_url: str
) -> None:
    await stored(bus, store, usage_record(1), usage_record(2, tenant=""))
    (position,) = [each.position for each in await store.usage.unreadable()]
    assert kinds(await compare(bus, store)) == [("unreadable", "", False)]
    # As if an earlier version could not read what this one can.
    await store.usage.set_aside(
        message_of(99, usage_record(7), stream=position.stream), "an unknown field"
    )
    found = await compare(bus, store)
    assert kinds(found) == [("unreadable", "", False)] * 2
    assert kinds(await compare(bus, store, repair=True)) == [("unreadable", "", False)]
    (sums,) = await store.usage_sums.sums(UsageFilter())
    assert sums["requests"] == 2


async def test_what_a_leader_has_counted_and_is_no_row_names_its_leadership(
    bus: JetStreamBus, store: Store, database_url: str
) -> None:
    records = [usage_record(1), usage_record(2)]
    totals = [TenantTotals(tenant="acme", requests=2, input_tokens=20, output_tokens=10)]
    message = UsageRecords(records=records, model="valley", epoch=7, totals=totals)
    await bus.publish_usage(message.SerializeToString())
    await stored(bus, store)
    assert kinds(await compare(bus, store)) == []
    await spoil(database_url, sa.delete(usage).where(usage.c.sequence == 2))
    details = [each.detail for each in (await compare(bus, store)).differences]
    assert (
        "compared with what the leader of valley in epoch 7 has settled, the rows have"
        " -1 requests, -10 input_tokens, -5 output_tokens"
    ) in details
    await compare(bus, store, repair=True)
    assert kinds(await compare(bus, store)) == []


async def test_closed_statements_are_compared_with_their_rows(
    bus: JetStreamBus, store: Store, database_url: str
) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    now_ms = int(SystemClock().unix_s() * 1000)
    at: dict[str, Any] = {"arrival_ms": now_ms, "end_ms": now_ms}
    await stored(bus, store, usage_record(1, **at), usage_record(2, **at))
    account = await store.statements.account("acme")
    month = month_at(now_ms, account.time_zone)
    await store.statements.close(account, month, early=True, by=ROOT)
    # It is in the next one.
    await stored(bus, store, usage_record(3, **at))
    assert kinds(await compare(bus, store)) == []
    await spoil(database_url, sa.update(usage).where(usage.c.sequence == 2).values(cost_nanos=7))
    found = await compare(bus, store)
    assert ("statement", "acme", False) in kinds(found)
    details = [each.detail for each in found.differences if each.kind == "statement"]
    assert details == [
        f"statement 1 of {month} has 2 requests and 0 nano-units; its rows are 2 and 7"
    ]
    await spoil(database_url, sa.update(statements).values(content="{}"))
    details = [each.detail for each in (await compare(bus, store)).differences]
    assert "statement 1 is not what its hash says: the database was changed" in details
