"""What leaders have counted is what their rows come to, for each tenant; a difference names the
leadership."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.bus.usage import StoredUsage, UsagePosition
from headrace.internal.v1.usage_pb2 import TenantTotals, UsageRecord, UsageRecords
from headrace_control.store import Store
from headrace_control.store.database.billing_tables import usage_position
from headrace_control.store.database.opening import open_engine
from headrace_control.store.usage.sums import NO_END_MS
from helpers.usage_records import START_MS, STREAM, usage_record


class Leader:
    """Publishes records as a leadership does, each of which it counts once."""

    def __init__(self, epoch: int, model: str = "valley") -> None:
        self.epoch, self.model, self.stream = epoch, model, STREAM
        self._counted: dict[str, TenantTotals] = {}

    def message(self, position: int, *records: UsageRecord, confirmed: bool = True) -> StoredUsage:
        """Return a message; one that is not confirmed is published again, and counts then."""
        totals: dict[str, TenantTotals] = {}
        for each in records:
            if each.tenant not in totals:
                totals[each.tenant] = TenantTotals(tenant=each.tenant)
                totals[each.tenant].MergeFrom(self._counted.get(each.tenant, TenantTotals()))
            totals[each.tenant].requests += 1
            totals[each.tenant].input_tokens += each.input_tokens
            totals[each.tenant].output_tokens += each.output_tokens
        if confirmed:
            self._counted |= totals
        published = UsageRecords(
            records=records, model=self.model, epoch=self.epoch, totals=totals.values()
        )
        return StoredUsage(UsagePosition(self.stream, position), published.SerializeToString())


async def differing(store: Store, since_ms: int = 0) -> list[tuple[str, int, dict[str, int]]]:
    found = await store.usage_checks.settled_differences(since_ms, NO_END_MS)
    return [(each.tenant, each.epoch, each.by_column) for each in found]


async def execute(database_url: str, change: sa.Executable) -> None:
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(change)
    await engine.dispose()


async def test_rows_are_what_their_leaders_have_counted(store: Store) -> None:
    first, second = Leader(3), Leader(5)
    other: dict[str, Any] = {"tenant": "other"}
    await store.usage.record(
        [
            first.message(1, usage_record(1), usage_record(2, **other)),
            # It is not confirmed, so it comes again in other company.
            first.message(2, usage_record(3), confirmed=False),
            first.message(3, usage_record(3), usage_record(4)),
            # Leader 5 reads the message of 4 again, and publishes it twice itself.
            second.message(4, usage_record(4), confirmed=False),
        ]
    )
    await store.usage.record([second.message(5, usage_record(4), usage_record(5, **other))])
    assert await differing(store) == []


async def test_a_message_that_is_missing_is_named_by_its_leadership(store: Store) -> None:
    first, second = Leader(3), Leader(5)
    await store.usage.record([first.message(1, usage_record(1))])
    first.message(2, usage_record(2), usage_record(3, tenant="other"))
    await store.usage.record(
        [first.message(3, usage_record(4)), second.message(4, usage_record(5))]
    )
    lost = {"requests": -1, "input_tokens": -10, "output_tokens": -5}
    assert await differing(store) == [("acme", 3, lost)]
    # Of the other tenant nothing is known until its leader publishes something for it again.
    await store.usage.record([first.message(5, usage_record(6, tenant="other"))])
    assert await differing(store) == [("acme", 3, lost), ("other", 3, lost)]
    assert await differing(store, since_ms=START_MS + 3_600_000) == []


async def test_what_was_counted_before_an_upgrade_is_not_compared(
    store: Store, database_url: str
) -> None:
    leader = Leader(3)
    await store.usage.record([Leader(1).message(1, usage_record(1))])
    await execute(database_url, sa.update(usage_position).values(is_older=True))
    leader.message(2, usage_record(2))
    await store.usage.record([leader.message(3, usage_record(3))])
    assert await differing(store) == []
    leader.message(4, usage_record(4))
    await store.usage.record([leader.message(5, usage_record(5))])
    assert [epoch for _, epoch, _ in await differing(store)] == [3]


async def test_a_leader_that_goes_on_in_another_stream_is_compared_from_there_on(
    store: Store,
) -> None:
    leader = Leader(3)
    await store.usage.record([leader.message(1, usage_record(1))])
    leader.message(2, usage_record(2))
    leader.stream = "later"
    await store.usage.record([leader.message(1, usage_record(3))])
    assert await differing(store) == []
    leader.message(2, usage_record(4))
    await store.usage.record([leader.message(3, usage_record(5))])
    assert [epoch for _, epoch, _ in await differing(store)] == [3]


async def test_whatever_a_message_says_of_its_leadership_its_records_are_rows(
    store: Store,
) -> None:
    most = 2**64 - 1
    total = TenantTotals(tenant="acme", requests=most, input_tokens=most, output_tokens=most)
    other = TenantTotals(tenant="t" * 9000)
    for position, (model, epoch) in enumerate([("m", most), ("m" * 9000, 3), ("m", 3)], 1):
        message = UsageRecords(
            records=[usage_record(position)], model=model, epoch=epoch, totals=[total, other]
        )
        stored = StoredUsage(UsagePosition(STREAM, position), message.SerializeToString())
        assert (await store.usage.record([stored])).rows == 1
    assert [(tenant, epoch) for tenant, epoch, _ in await differing(store)] == [("acme", 3)]


async def test_leaderships_whose_rows_are_deleted_are_compared_no_more(store: Store) -> None:
    day_ms = 86_400_000
    old, new = Leader(3), Leader(5)
    later = usage_record(2, tenant="b", end_ms=START_MS + 3 * day_ms)
    await store.usage.record([old.message(1, usage_record(1, tenant="a")), new.message(2, later)])
    assert await store.old_usage_rows.delete(START_MS + day_ms) == 1
    assert await differing(store) == []


RUNS = itertools.count(1)
"""All examples have one database."""
Published = Sequence[tuple[int, int, bool]]
"""Messages: which of two leaders, the first of up to three records, and whether it is confirmed."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    published=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.booleans()), max_size=12),
    grouped=st.integers(1, 4),
)
async def test_however_often_records_come_they_count_once_for_each_leadership(
    store: Store, published: Published, grouped: int
) -> None:
    run = next(RUNS)
    leaders = [Leader(2 * run), Leader(2 * run + 1)]
    counted: list[set[int]] = [set(), set()]
    waiting: list[list[int]] = [[], []]
    messages: list[StoredUsage] = []
    position = await store.usage.position()
    at = position.sequence if position else 0
    for which, first, confirmed in [*published, (0, 1, True), (1, 1, True)]:
        # A leader repeats what was not confirmed, and publishes nothing again that was.
        new = [each for each in range(first, first + 3) if each not in counted[which]]
        records = sorted({*waiting[which], *new})
        if not records:
            continue
        waiting[which] = [] if confirmed else records
        if confirmed:
            counted[which] |= set(records)
        at += 1
        source = f"requests:{run}"
        of_it = [usage_record(each, source=source, output_tokens=each) for each in records]
        messages.append(leaders[which].message(at, *of_it, confirmed=confirmed))
    for begin in range(0, len(messages), grouped):
        await store.usage.record(messages[begin : begin + grouped])
    assert await differing(store) == []
