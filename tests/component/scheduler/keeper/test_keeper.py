"""The quota keeper over a real broker: what it decides on, and what its successor knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.bus.stores import KEEPER_LEASE
from headrace.errors import QuotaUnavailable
from headrace.internal.v1.access_pb2 import Limits, PriceRow
from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse, UsagePart
from headrace.internal.v1.quota_pb2 import LimitKind
from headrace.quota import QuotaClient
from headrace_scheduler.keeper import journal as journal_module
from helpers.eventually import eventually
from helpers.running_keeper import (
    journal_record,
    keeper,
    publish_tables,
    publish_usage,
    quota_client,
    reservation,
    start_keeper,
    states,
    used,
)

LIMITS = Limits(requests_per_minute=100, tokens_per_minute=1000)


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[QuotaClient]:
    async with quota_client(nats_url) as made:
        yield made


async def serves(client: QuotaClient) -> bool:
    try:
        await states(client)
    except QuotaUnavailable:
        return False
    return True


async def test_it_decides_by_the_limits_that_control_publishes(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    prices = (PriceRow(model="m", currency="USD", input_nanos=5),)
    limits = Limits(tokens_per_minute=1000, budget_nanos_per_month=4000)
    key_limits = Limits(requests_per_day=100)
    model_limits = {"m": Limits(tokens_per_day=900), "other": Limits(tokens_per_day=1)}
    await publish_tables(
        bus, limits, key_limits=key_limits, model_limits=model_limits, prices=prices
    )
    async with keeper(nats_url):
        granted = await client.reserve(reservation("r1", 700))
        assert not granted.HasField("refusal")
        assert [(s.limit, s.remaining) for s in granted.limits] == [
            (1000, 300),
            (4000, 500),
            (900, 200),
            (100, 99),
        ]
        refused = (await client.reserve(reservation("r2", 101))).refusal
        assert refused.kind == LimitKind.LIMIT_KIND_BUDGET_PER_MONTH
        await publish_tables(bus, Limits())
        await eventually(lambda: is_unlimited(client))
        assert not (await client.reserve(reservation("r3", 100_000))).HasField("refusal")


async def is_unlimited(client: QuotaClient) -> bool:
    return not await states(client)


async def test_before_it_has_read_the_tables_there_is_no_keeper(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    async with keeper(nats_url):
        with pytest.raises(QuotaUnavailable):
            await client.reserve(reservation("r"))
        await bus.acquire(KEEPER_LEASE, "free", ttl_s=3)


async def test_a_successor_has_what_was_reserved_and_charges_repeats_once(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, LIMITS)
    async with keeper(nats_url):
        await client.reserve(reservation("r1", 600))
        await client.reserve(reservation("r2", 300))
        client.confirm("r2", tenant="acme")
        client.release("r1", tenant="acme")
        assert await used(client) == [1, 300]
    async with keeper(nats_url, "two"):
        assert await serves(client)
        await client.reserve(reservation("r2", 300))
        assert await used(client) == [1, 300]
        refused = await client.reserve(reservation("r3", 701))
        assert refused.refusal.used == 300
    record = await journal_record(bus)
    assert record.epoch == 2
    reserved = record.reservation("r2")
    assert reserved is not None
    assert reserved.confirmed


async def test_a_killed_keeper_is_replaced_when_its_lease_expires(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, LIMITS)
    first = await start_keeper(nats_url)
    await eventually(lambda: serves(client))
    await client.reserve(reservation("r1", 600))
    async with keeper(nats_url, "two"):
        await first.kill()
        with pytest.raises(QuotaUnavailable):
            await client.reserve(reservation("r2", 600))
        await eventually(lambda: serves(client), within_s=10)
        assert await used(client) == [1, 600]


async def test_a_keeper_that_is_not_the_only_one_any_more_grants_nothing(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    """The journal fences, not the lease: here an entry comes from elsewhere while it is held."""
    await publish_tables(bus, LIMITS)
    async with keeper(nats_url):
        await client.reserve(reservation("r1", 600))
        contents = await bus.read_journal()
        foreign = contents.entries[-1].replace(b"r1", b"r9")
        await bus.append_entry(foreign, after=contents.last)
        reply = await client.reserve(reservation("r2", 300))
        assert reply.refusal.used == 1200, "it has read what the other one granted"
        record = await journal_record(bus)
        assert record.epoch == 2
        assert record.reservation("r2") is None


async def test_usage_settles_reservations_and_late_usage_is_charged_once(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, LIMITS)
    async with keeper(nats_url):
        await client.reserve(reservation("r1", 600))
        await publish_usage(bus, "r1", 250)
        await eventually(lambda: uses(client, [1, 250]))
        await publish_usage(bus, "", 40, sequence=2)
        await eventually(lambda: uses(client, [2, 290]))
    # Without a keeper the usage waits, and what its predecessor has settled does not come again.
    await publish_usage(bus, "never-reserved", 10, sequence=3)
    async with keeper(nats_url, "two"):
        await eventually(lambda: uses(client, [3, 300]))
        await publish_usage(bus, "r1", 251)
        await publish_usage(bus, "last", 1, sequence=4)
        await eventually(lambda: uses(client, [4, 301]))
        await eventually(lambda: may_all_be_purged(bus))


async def may_all_be_purged(bus: JetStreamBus) -> bool:
    await bus.purge_usage((await bus.usage_state()).last)
    return (await bus.usage_state()).messages == 0


async def uses(client: QuotaClient, expected: list[int]) -> bool:
    return await used(client) == expected


async def test_the_first_keeper_does_not_charge_the_past(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, LIMITS)
    await publish_usage(bus, "old", 500)
    async with keeper(nats_url):
        await client.reserve(reservation("r1", 10))
        await publish_usage(bus, "new", 5, sequence=2)
        await eventually(lambda: uses(client, [2, 15]))


async def test_a_new_journal_begins_with_what_control_knows_of_the_day_and_the_month(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    asked: list[OwnUsageRequest] = []

    async def answer(payload: bytes) -> bytes:
        asked.append(OwnUsageRequest.FromString(payload))
        parts = [
            UsagePart(key_id="k", model="m", requests=3, tokens=300, cost_nanos=30),
            UsagePart(key_id="other", model="m", requests=4, tokens=400, cost_nanos=40),
            UsagePart(key_id="k", model="x", batch=True, requests=5, tokens=500, cost_nanos=50),
        ]
        return OwnUsageResponse(parts=parts).SerializeToString()

    limits = Limits(
        requests_per_day=100,
        tokens_per_day=1000,
        batch_tokens_per_day=1000,
        budget_nanos_per_month=1000,
    )
    only = Limits(tokens_per_day=1000)
    await publish_tables(bus, limits, key_limits=only, model_limits={"m": only})
    control = await bus.serve(subjects.OWN_USAGE, answer)
    async with keeper(nats_url):
        await eventually(lambda: serves(client))
        assert await used(client) == [12, 700, 500, 120, 700, 300]
        await client.reserve(reservation("r1", 10))
    assert {each.tenant for each in asked} == {"acme"}
    assert asked[0].since_ms > asked[1].since_ms or asked[0].since_ms % 86_400_000 == 0
    async with keeper(nats_url, "two"):
        await eventually(lambda: serves(client))
        assert await used(client) == [13, 710, 500, 120, 710, 310]
        assert len(asked) == 2, "the journal is not new any more"
    await control.close()


async def test_snapshots_keep_the_journal_short_and_lose_nothing(
    bus: JetStreamBus, nats_url: str, client: QuotaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SNAPSHOT_ENTRIES", 20)
    await publish_tables(bus, Limits(tokens_per_day=1_000_000))
    async with keeper(nats_url):
        for i in range(100):
            await client.reserve(reservation(f"r{i}", 10))
        assert len((await bus.read_journal()).entries) < 50
    async with keeper(nats_url, "two"):
        assert await used(client) == [1000]
        await asyncio.gather(*(client.reserve(reservation(f"r{i}", 10)) for i in range(100)))
        assert await used(client) == [1000]


async def test_calls_that_wait_share_an_entry(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, Limits(tokens_per_minute=500))
    async with keeper(nats_url), quota_client(nats_url, "gateway-1") as other:
        await eventually(lambda: serves(client))
        before = (await bus.read_journal()).last
        replies = await asyncio.gather(
            *(
                each.reserve(reservation(f"{i}-{id(each)}"))
                for i in range(500)
                for each in (client, other)
            )
        )
        granted = sum(not reply.HasField("refusal") for reply in replies)
        assert granted == 500
        assert (await bus.read_journal()).last - before < 20


async def test_usage_that_no_call_waits_for_shares_an_entry(
    bus: JetStreamBus, nats_url: str, client: QuotaClient
) -> None:
    await publish_tables(bus, LIMITS)
    async with keeper(nats_url):
        await eventually(lambda: serves(client))
        before = (await bus.read_journal()).last
        for sequence in range(1, 31):
            await publish_usage(bus, f"r{sequence}", 1, sequence=sequence)

        async def all_are_settled() -> bool:
            return (await journal_record(bus)).usage_sequence == 30

        await eventually(all_are_settled)
        assert (await bus.read_journal()).last - before < 15
