"""The order of the calls for a request that has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

from headrace.bus import Bus
from headrace.bus.jetstream import JetStreamBus
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.stream.open_request import STORE_WAIT_S
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL, running_mesh, valid_request
from helpers.recorded_bus import RecordedBus

BILLED = replace(valid_request("a"), key_id="8dFanMt4iD4")


async def test_a_request_is_settled_once_its_result_is_stored(bus: JetStreamBus) -> None:
    recorded = RecordedBus(bus, MODEL)
    async with running_mesh(cast(Bus, recorded)) as gateway:
        generation = await gateway.open("a")
        await generation.settle(RequestOutcome())
        await eventually(lambda: "settle" in recorded.calls)
    assert recorded.calls[:2] == ["stored", "settle"]
    assert await bus.get_result("a") is not None


async def test_the_end_of_a_request_that_is_billed_waits_for_its_result(bus: JetStreamBus) -> None:
    recorded = RecordedBus(bus, MODEL)
    async with running_mesh(cast(Bus, recorded)) as gateway:
        generation = await gateway.mesh.admission.open(BILLED)
        await generation.settle(RequestOutcome())
        assert recorded.calls[:1] == ["stored"]


async def test_a_broker_that_is_away_holds_an_end_for_a_moment(bus: JetStreamBus) -> None:
    recorded = RecordedBus(bus, MODEL)
    async with running_mesh(cast(Bus, recorded)) as gateway:
        generation = await gateway.mesh.admission.open(BILLED)
        await bus.close()
        async with asyncio.timeout(10 * STORE_WAIT_S):
            await generation.settle(RequestOutcome())
