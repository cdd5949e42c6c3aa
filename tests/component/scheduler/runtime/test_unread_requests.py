"""Requests that are stored, and whose leader has not read them yet when it is called about them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.bus import Bus, LaneReader, NoReply, PulledMessage, subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse
from headrace_scheduler.runtime.handlers import SharedCall
from helpers.eventually import eventually
from helpers.running_scheduler import SchedulerProcess, scheduler, start_scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor, cancel, find

LATE_S = 0.25


class LateLane:
    """Messages come later than a pull waits for them while a lane is read for the first time."""

    def __init__(self, lane: LaneReader) -> None:
        self._lane = lane

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lane, name)

    async def pull(self, **options: Any) -> list[PulledMessage]:
        await asyncio.sleep(LATE_S)
        return await self._lane.pull(**options)


class LateBus:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def take_over(self, *lane: str) -> Any:
        return LateLane(await self._bus.take_over(*lane))


@pytest.fixture
async def leader(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> AsyncIterator[SchedulerProcess]:
    process = await start_scheduler(nats_url, through=LateBus)
    await gateway.submit("first")
    await eventually(lambda: "first" in worker.running)
    yield process
    await process.stop()


async def test_a_request_is_found_as_soon_as_it_is_stored(
    bus: JetStreamBus, gateway: GatewayActor, leader: SchedulerProcess
) -> None:
    for number in range(8):
        await gateway.submit(f"request-{number}")
        assert (await find(bus, f"request-{number}")).found


async def test_a_request_is_cancelled_as_soon_as_it_is_stored(
    bus: JetStreamBus, gateway: GatewayActor, leader: SchedulerProcess
) -> None:
    await gateway.submit("a")
    assert (await cancel(bus, "a")).found
    await eventually(lambda: "a" in gateway.ended)


async def test_what_was_never_stored_is_unknown_as_soon_as_all_is_read(
    bus: JetStreamBus, leader: SchedulerProcess
) -> None:
    answers = await asyncio.gather(*(find(bus, f"unknown-{n}") for n in range(50)))
    assert [(answer.found, answer.pending) for answer in answers] == [(False, False)] * 50


async def answer_of_leader(bus: Bus, request_id: str) -> LocateResponse:
    message = LocateRequest(request_id=request_id, verb=LocateRequest.VERB_FIND)
    while True:
        try:
            answer = await bus.request(
                subjects.locate(MODEL), message.SerializeToString(), timeout_s=2.0
            )
        except NoReply:  # there is no leader yet
            await asyncio.sleep(0.01)
        else:
            return LocateResponse.FromString(answer)


async def test_a_new_leader_calls_nothing_unknown_before_it_has_read_its_lanes(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    # No leader reads them, and none holds them longer than it waits for its workers.
    for number in range(5):
        await gateway.submit(f"request-{number}")
    process = await start_scheduler(nats_url, through=LateBus, adoption_window_s=0.0)
    try:
        answers = [await answer_of_leader(bus, f"request-{number}") for number in range(5)]
        assert all(answer.found or answer.pending for answer in answers)
    finally:
        await process.stop()


async def test_an_unknown_request_is_unknown_however_many_others_are_stored_meanwhile(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async def submit_without_end() -> None:
        for number in itertools.count():
            await gateway.submit(f"other-{number}")
            await asyncio.sleep(0.002)

    async with scheduler(nats_url):
        await gateway.submit("first")
        await eventually(lambda: "first" in worker.running)
        others = asyncio.create_task(submit_without_end())
        answers = [await find(bus, f"unknown-{n}") for n in range(10)]
        others.cancel()
    assert [(answer.found, answer.pending) for answer in answers] == [(False, False)] * 10


async def test_a_shared_call_begins_after_each_call_that_gets_its_result() -> None:
    begun, calls = 0, 0

    async def check() -> bool:
        nonlocal begun
        begun += 1
        number = calls
        await asyncio.sleep(0.01)
        return number == calls

    shared = SharedCall(check)

    async def call() -> bool:
        nonlocal calls
        calls += 1
        return await shared()

    first = asyncio.create_task(call())
    await asyncio.sleep(0)
    rest = [asyncio.create_task(call()) for _ in range(20)]
    assert [await each for each in rest] == [True] * 20
    assert not await first, "it began before the other calls"
    assert begun == 2
