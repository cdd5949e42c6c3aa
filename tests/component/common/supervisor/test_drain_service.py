"""The supervisor of a worker keeps it stopped, from whichever machine the drain comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.bus import Bus, BusUnavailable, NoResponders, connect
from headrace.bus.control import request_drain, request_undrain, serve_drain
from headrace.bus.jetstream import JetStreamBus
from headrace.supervisor.drain_service import serve_drained_marks
from headrace.supervisor.state.state_dir import StateDir
from helpers.eventually import eventually

WORKER = "worker-tiny-0"


@pytest.fixture
async def state_dir(nats_url: str, bus: JetStreamBus, tmp_path: Path) -> AsyncIterator[StateDir]:
    """Of a supervisor that has one worker; its broker is away at first."""
    found, attempts = StateDir(tmp_path), 0
    found.folder.mkdir(exist_ok=True)

    async def open_bus() -> Bus:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise BusUnavailable("away at first")
        return await connect(nats_url, name="supervisor", replicas=None)

    serving = asyncio.create_task(serve_drained_marks(open_bus, found, [WORKER]))

    async def is_served() -> bool:
        try:
            await request_undrain(bus, WORKER, timeout_s=1)
        except NoResponders:
            return False
        return True

    await eventually(is_served)
    yield found
    serving.cancel()
    await asyncio.wait({serving})


async def test_a_drained_worker_is_marked_until_the_drain_is_undone(
    bus: JetStreamBus, state_dir: StateDir
) -> None:
    marked: list[bool] = []
    await serve_drain(bus, WORKER, lambda _: marked.append(state_dir.is_marked_drained(WORKER)))
    await request_drain(bus, WORKER, timeout_s=2)
    assert marked == [True], "it may end at once"
    assert await request_undrain(bus, WORKER, timeout_s=2)
    assert not state_dir.is_marked_drained(WORKER)


async def test_others_are_not_kept_stopped(bus: JetStreamBus, state_dir: StateDir) -> None:
    await serve_drain(bus, "scheduler-0", lambda _: None)
    reply = await request_drain(bus, "scheduler-0", timeout_s=2)
    assert not reply.stays_stopped
    with pytest.raises(NoResponders):
        await request_undrain(bus, "scheduler-0", timeout_s=2)
