"""The order of the calls for a request that has ended."""

from __future__ import annotations

from typing import cast

from headrace.bus import Bus
from headrace.bus.jetstream import JetStreamBus
from headrace.v1.common_pb2 import RequestOutcome
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL, running_mesh
from helpers.recorded_bus import RecordedBus


async def test_a_request_is_settled_once_its_result_is_stored(bus: JetStreamBus) -> None:
    recorded = RecordedBus(bus, MODEL)
    async with running_mesh(cast(Bus, recorded)) as gateway:
        generation = await gateway.open("a")
        await generation.settle(RequestOutcome())
        await eventually(lambda: "settle" in recorded.calls)
    assert recorded.calls[:2] == ["stored", "settle"]
    assert await bus.get_result("a") is not None
