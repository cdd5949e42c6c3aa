"""A call that waits for a request's end returns at its end, wherever that happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from headrace.bus import Bus, OnMessage, Subscription
from headrace.clock import SystemClock
from headrace.errors import RateLimitExceeded, RequestNotFound
from headrace.internal.v1.reports_pb2 import LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.common_pb2 import FINISH_REASON_LENGTH, Choice, RequestOutcome
from headrace_gateway.resume.location import Location
from headrace_gateway.resume.waiting import MAX_WAITING, EndWaiter
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL, LeaderActor, RunningMesh, leader, running_mesh

OUTCOME = RequestOutcome(choices=[Choice(token_ids=[7], finish_reason=FINISH_REASON_LENGTH)])
LONG_S = 30.0


@pytest.fixture
async def boss(bus: Bus) -> AsyncIterator[LeaderActor]:
    async with leader(bus) as actor, leader(bus, "orphan"):
        yield actor


def elsewhere(gateway_id: str = "other") -> LocateResponse:
    record = RequestRecord(request_id="r1", model=MODEL, gateway_id=gateway_id)
    record.deadline.GetCurrentTime()
    return LocateResponse(found=True, running=True, record=record)


def waiting(gateway: RunningMesh, wait_s: float = LONG_S) -> asyncio.Task[Location]:
    return asyncio.create_task(gateway.mesh.directory.wait("r1", wait_s))


async def ended(waits: asyncio.Task[Location]) -> bool:
    async with asyncio.timeout(5):
        return (await waits).result is not None


async def test_a_request_that_is_open_here_ends_the_wait_and_asks_nobody(
    bus: Bus, boss: LeaderActor
) -> None:
    async with running_mesh(bus) as gateway:
        generation = await gateway.open("r1")
        waits = waiting(gateway)
        await asyncio.sleep(0)
        assert not waits.done()
        await generation.settle(OUTCOME)
        assert await ended(waits)
        assert boss.located == []


async def test_what_has_ended_is_returned_at_once(bus: Bus, boss: LeaderActor) -> None:
    await bus.put_result("r1", ResultRecord(outcome=OUTCOME).SerializeToString())
    async with running_mesh(bus) as gateway:
        assert await ended(waiting(gateway))


async def test_after_the_time_the_state_is_returned(bus: Bus, boss: LeaderActor) -> None:
    boss.knows["r1"] = elsewhere()
    async with running_mesh(bus) as gateway:
        location = await waiting(gateway, 0.05)
        assert (location.result, location.leader.running) == (None, True)
        generation = await gateway.open("r1")
        location = await waiting(gateway, 0.05)
        assert location.open_request is not None
        await generation.abandon()


async def test_an_unknown_request_is_not_waited_for(bus: Bus, boss: LeaderActor) -> None:
    async with running_mesh(bus) as gateway:
        with pytest.raises(RequestNotFound):
            await waiting(gateway)


async def test_a_request_of_another_gateway_ends_the_wait(bus: Bus, boss: LeaderActor) -> None:
    async with running_mesh(bus) as gateway, running_mesh(bus, "other") as other:
        generation = await other.open("r1")
        boss.knows["r1"] = elsewhere()
        waits = waiting(gateway)
        await eventually(lambda: bool(boss.located))
        await generation.settle(OUTCOME)
        assert await ended(waits)


async def test_whoever_stores_the_end_after_a_death_ends_the_wait(
    bus: Bus, boss: LeaderActor
) -> None:
    """The gateway that held it is gone, and its leader knows nothing for a while."""
    boss.knows["r1"] = elsewhere("dead")
    async with running_mesh(bus) as gateway:
        waits = waiting(gateway)
        await eventually(lambda: bool(boss.located))
        boss.knows["r1"] = LocateResponse(pending=True)
        await bus.put_result("r1", ResultRecord(outcome=OUTCOME).SerializeToString())
        assert await ended(waits)


async def test_a_gateway_that_stops_keeps_nobody_waiting(bus: Bus, boss: LeaderActor) -> None:
    boss.knows["r1"] = elsewhere()
    async with running_mesh(bus) as gateway:
        remote = waiting(gateway)
        await eventually(lambda: bool(boss.located))
        await gateway.mesh.drain()
        async with asyncio.timeout(5):
            assert (await remote).leader.running
            assert (await waiting(gateway)).leader.running


async def test_so_many_calls_of_a_tenant_wait_and_ask_nothing_meanwhile(
    bus: Bus, boss: LeaderActor
) -> None:
    boss.knows["r1"] = elsewhere()
    async with running_mesh(bus) as gateway:
        waits = [waiting(gateway) for _ in range(MAX_WAITING)]
        await eventually(lambda: len(boss.located) == MAX_WAITING)
        with pytest.raises(RateLimitExceeded, match=f"{MAX_WAITING} calls of this tenant wait"):
            await waiting(gateway)
        with pytest.raises(RequestNotFound):
            await gateway.mesh.directory.wait("other/r1", LONG_S)
        assert len(boss.located) <= MAX_WAITING + 1
        waits.pop().cancel()
        await asyncio.sleep(0)
        waits.append(waiting(gateway, 0.01))
        assert (await waits[-1]).leader.running
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


@dataclass
class CountingBus:
    """Counts its subscriptions."""

    bus: Bus
    held: int = 0

    async def subscribe(self, subject: str, on_message: OnMessage) -> Subscription:
        self.held += 1
        return CountedSubscription(self, await self.bus.subscribe(subject, on_message))


@dataclass
class CountedSubscription:
    bus: CountingBus
    real: Subscription

    async def close(self) -> None:
        self.bus.held -= 1
        await self.real.close()


async def test_a_client_that_leaves_leaves_no_subscription(bus: Bus, boss: LeaderActor) -> None:
    boss.knows["r1"] = elsewhere()
    counting = CountingBus(bus)
    async with running_mesh(bus) as gateway:
        waiter = EndWaiter(gateway.mesh.directory, counting, SystemClock())
        waits = asyncio.create_task(waiter.wait("r1", LONG_S))
        await eventually(lambda: bool(boss.located))
        assert counting.held == 1
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert counting.held == 0
