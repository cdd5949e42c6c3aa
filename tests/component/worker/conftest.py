"""What stands around each worker: a gateway, and a scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headrace.bus.jetstream import JetStreamBus
from helpers.listening_gateway import GatewayActor, gateway
from helpers.worker_actors import SchedulerActor


@pytest.fixture
async def gw() -> AsyncIterator[GatewayActor]:
    async with gateway() as actor:
        yield actor


@pytest.fixture
async def scheduler(bus: JetStreamBus) -> SchedulerActor:
    actor = SchedulerActor(bus)
    await actor.start()
    return actor
