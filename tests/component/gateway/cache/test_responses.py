"""Equal requests share one run and its answer, and nobody's failure is another's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from headrace.bus import Bus
from headrace.errors import RequestCancelled
from headrace.internal.v1.access_pb2 import Limits, TenantRow
from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard
from headrace.internal.v1.request_pb2 import Sampling
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace.v1.common_pb2 import (
    FINISH_REASON_LENGTH,
    PRIORITY_BULK,
    Choice,
    RequestOutcome,
)
from headrace_gateway.quota.call_limits import CallLimits
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Tokens,
    ValidRequest,
)
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    RunningMesh,
    WorkerActor,
    leader,
    read,
    running_mesh,
    valid_request,
    worker,
)
from helpers.scripted_keeper import FixedRows, scripted_keeper

CARD = ModelCard(model=MODEL, weights_digest="w1", capabilities=Capabilities(resume=True))
ALLOWED = FixedRows([TenantRow(tenant="default", response_cache=True)])
ANSWER: list[Event] = [Tokens(0, 0, [70, 71]), ChoiceEnded(0, FINISH_REASON_LENGTH)]


def request(name: str, **changes: Any) -> ValidRequest:
    return dataclasses.replace(valid_request(name), **{"card": CARD, **changes})


@dataclass
class World:
    """A gateway whose tenant allows the cache, a leader that settles, and a worker."""

    gateway: RunningMesh
    worker: WorkerActor

    async def open(self, name: str, **changes: Any) -> tuple[Generation, str]:
        """Open a request that wants the cache; return its output, and what the header says."""
        given, noted = request(name, **changes), CallLimits()
        mesh = self.gateway.mesh
        with noted.noted():
            opened = await mesh.caches.responses.open(
                given, lambda: mesh.admission.open(given), seeded=False
            )
        return opened, noted.cache

    async def run(self, name: str, ids: Sequence[int] = (70, 71), *, ends: bool = True) -> None:
        """The worker's part."""
        slot = await self.worker.start(name, attempt=1)
        await self.worker.run_on(slot, first=0, ids=list(ids))
        if ends:
            await self.worker.end(slot, output_tokens=len(ids))

    async def answer(self, name: str) -> str:
        """Open, run, read and settle a request; return what the header says."""
        opened, outcome = await self.open(name)
        if outcome != "hit":
            await self.run(name)
        assert await read(opened) == ANSWER
        await opened.settle(whole())
        return outcome


def whole() -> RequestOutcome:
    choice = Choice(token_ids=[70, 71], finish_reason=FINISH_REASON_LENGTH, text="FG")
    return RequestOutcome(choices=[choice])


@asynccontextmanager
async def running_world(
    bus: Bus, rows: FixedRows = ALLOWED, **settings: Any
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_mesh(bus, rows=rows, **settings))
        await stack.enter_async_context(leader(bus))
        actor = await stack.enter_async_context(worker(gateway.address))
        yield World(gateway, actor)


@pytest.fixture
async def world(bus: Bus) -> AsyncIterator[World]:
    async with running_world(bus) as running:
        yield running


async def usage(bus: Bus, count: int) -> list[UsageRecord]:
    records: list[UsageRecord] = []

    async def are_there() -> bool:
        stored = await bus.usage_after(None, max_messages=100, timeout_s=0)
        records[:] = [r for one in stored for r in UsageRecords.FromString(one.payload).records]
        return len(records) == count

    await eventually(are_there)
    return records


async def test_an_answer_comes_from_the_cache_once_it_was_made(world: World, bus: Bus) -> None:
    assert [await world.answer(name) for name in ("r1", "r2", "r3")] == ["miss", "hit", "hit"]
    for sequence, record in enumerate(await usage(bus, 2), 1):
        assert (record.source, record.sequence) == ("cache:gw", sequence)
        assert (record.cache_hit, record.tenant, record.n) == (True, "default", 1)
        assert (record.input_tokens, record.output_tokens) == (0, 0)


async def test_another_gateway_has_it_from_the_broker(world: World, bus: Bus) -> None:
    assert await world.answer("r1") == "miss"
    async with running_mesh(bus, "other", rows=ALLOWED) as gateway:
        other = World(gateway, world.worker)

        async def is_hit() -> bool:
            opened, outcome = await other.open("r2")
            await opened.abandon()
            return outcome == "hit"

        await eventually(is_hit)


async def test_equal_requests_under_way_share_one_run(world: World) -> None:
    first, outcome = await world.open("r1")
    others = await asyncio.gather(*(world.open(f"r{i}") for i in range(2, 6)))
    assert [outcome, *(o for _, o in others)] == ["miss", *["hit"] * 4]
    assert len(world.gateway.mesh.requests) == 1
    reading = [asyncio.create_task(read(each)) for each in (first, *(g for g, _ in others))]
    await world.run("r1")
    assert await asyncio.gather(*reading) == [ANSWER] * 5
    for each in (first, *(g for g, _ in others)):
        await each.settle(whole())
    assert len(world.gateway.mesh.requests) == 0


async def test_equal_requests_that_come_at_once_open_one(world: World) -> None:
    opened = await asyncio.gather(*(world.open(f"r{i}") for i in range(8)))
    assert sorted(outcome for _, outcome in opened) == ["hit"] * 7 + ["miss"]
    assert len(world.gateway.mesh.requests) == 1
    for each, _ in opened:
        await each.abandon()
    assert len(world.gateway.mesh.requests) == 0


async def test_the_first_client_may_leave(world: World) -> None:
    first, _ = await world.open("r1")
    second, _ = await world.open("r2")
    await world.run("r1", ends=False)
    await first.abandon()
    assert world.gateway.open_request("r1").readers == 1
    reading = asyncio.create_task(read(second))
    slot = await world.worker.start("r1", attempt=2)
    await world.worker.run_on(slot, first=0, ids=[70, 71])
    await world.worker.end(slot, output_tokens=2)
    assert await reading == ANSWER
    await second.settle(whole())
    assert await world.answer("r3") == "hit"


async def test_a_cancelled_request_fails_only_itself(world: World, bus: Bus) -> None:
    first, _ = await world.open("r1")
    second, outcome = await world.open("r2")
    assert outcome == "hit"
    reading = [asyncio.create_task(read(each)) for each in (first, second)]
    await world.run("r1", [70], ends=False)
    world.gateway.open_request("r1").fail(RequestCancelled("by its caller"))
    assert any(isinstance(event, Failed) for event in await reading[0])
    await eventually(lambda: world.gateway.mesh.requests.find("r2") is not None)
    await world.run("r2")
    assert await reading[1] == ANSWER
    error = RequestOutcome()
    error.error.code = 1
    await first.settle(error)
    await second.settle(whole())
    assert await world.answer("r3") == "hit"
    assert [record.request_id for record in await usage(bus, 1)] == ["r3"]


async def test_a_more_urgent_request_does_not_wait_for_a_less_urgent_one(world: World) -> None:
    slow, _ = await world.open("r1", priority=PRIORITY_BULK)
    urgent, outcome = await world.open("r2")
    assert outcome == "miss"
    assert len(world.gateway.mesh.requests) == 2
    for each in (slow, urgent):
        await each.abandon()


async def test_a_failed_request_is_not_stored(world: World) -> None:
    first, _ = await world.open("r1")
    await first.abandon()
    second, outcome = await world.open("r2")
    assert outcome == "miss"
    await second.abandon()


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(max_tokens=100, temperature=1.0)},
        {"background": True},
        {"once": True},
        {"tenant": "other"},
        {"card": ModelCard(model=MODEL, weights_digest="w1")},
    ],
)
async def test_what_may_not_be_cached_is_run(world: World, changes: dict[str, Any]) -> None:
    for name in ("r1", "r2"):
        opened, outcome = await world.open(name, **changes)
        assert outcome == "bypass"
        await opened.abandon()


async def test_answers_of_weights_that_are_gone_are_purged(world: World, bus: Bus) -> None:
    assert await world.answer("r1") == "miss"
    changed = ModelCard(model=MODEL, weights_digest="w2", capabilities=Capabilities(resume=True))
    opened, outcome = await world.open("r2", card=changed)
    assert outcome == "miss"
    await opened.abandon()
    world.gateway.mesh.caches.forget(MODEL)
    await eventually(lambda: world.gateway.mesh.caches.responses.is_idle)
    opened, outcome = await world.open("r3")
    assert outcome == "miss"
    await opened.abandon()


async def test_a_hit_counts_a_request_and_no_tokens(bus: Bus) -> None:
    limits = Limits(requests_per_minute=10, tokens_per_minute=1000)
    rows = FixedRows([TenantRow(tenant="default", response_cache=True, limits=limits)])
    async with scripted_keeper(bus) as keeper, running_world(bus, rows) as world:
        assert [await world.answer(name) for name in ("r1", "r2")] == ["miss", "hit"]
        run, hit = keeper.reserved
        assert (run.input_tokens, run.output_tokens) == (3, 100)
        assert (hit.input_tokens, hit.output_tokens) == (0, 0)
        assert hit.reservation_id.startswith("r2.")
        await eventually(lambda: hit.reservation_id in keeper.confirmed)
        (record,) = await usage(bus, 1)
        assert record.reservation_id == hit.reservation_id
        assert hit.reservation_id not in keeper.released
