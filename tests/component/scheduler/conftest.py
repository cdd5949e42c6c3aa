"""A worker and a gateway on the test's bus. A test may stop either before its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headrace.bus.jetstream import JetStreamBus
from helpers.scheduler_actors import GatewayActor, WorkerActor


@pytest.fixture
async def gateway(bus: JetStreamBus) -> AsyncIterator[GatewayActor]:
    actor = await GatewayActor(bus, "gw-1").start()
    yield actor
    await actor.die()


@pytest.fixture
async def worker(bus: JetStreamBus) -> AsyncIterator[WorkerActor]:
    """A worker with four slots."""
    actor = await WorkerActor(bus, "worker-1").start()
    yield actor
    await actor.die()
