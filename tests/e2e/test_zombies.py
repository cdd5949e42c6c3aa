"""A worker that is frozen until its requests have moved, and then sends on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest

from helpers.eventually import eventually
from helpers.exact_clients import Clients
from helpers.fresh_mesh import FreshMesh, fresh_mesh

STREAMS, SLOTS, TOKENS = 8, 6, 500
"""More streams than one of two workers has slots for: both run some."""
MOVED_WITHIN_S = 60.0
FREEZES = 5
"""The connection of a frozen worker may close before it has sent anything; not every time."""


@pytest.mark.timeout(300)
async def test_late_tokens_of_a_frozen_worker_are_counted_and_dropped(
    tmp_path: Path,
) -> None:
    slots = ("--workers", "2", "--set", f"worker.max_slots={SLOTS}")
    async with (
        fresh_mesh(tmp_path, *slots, "--scripted-step-ms", "15") as mesh,
        grpc.aio.insecure_channel(mesh.url.removeprefix("http://")) as channel,
    ):
        clients = Clients(channel)
        expected = await asyncio.gather(*(clients.generate(n, TOKENS) for n in range(STREAMS)))
        for _ in range(FREEZES):
            clients.under_way.clear()
            async with asyncio.TaskGroup() as group:
                streams = [group.create_task(clients.generate(n, TOKENS)) for n in range(STREAMS)]
                await eventually(lambda: len(clients.under_way) > SLOTS, within_s=30)
                await freeze_until_moved(mesh)
            assert [stream.result() for stream in streams] == expected
            if await mesh.counted("gateway-0", "headrace_gateway_stale_tokens_total"):
                return
        pytest.fail(f"no late token in {FREEZES} freezes")


async def freeze_until_moved(mesh: FreshMesh) -> None:
    """Freeze a worker until its requests have been dispatched to others."""
    name = "headrace_scheduler_dispatched_requests_total"
    before = await mesh.counted("scheduler-0", name)
    pid = mesh.processes["worker-scripted-0"].pid
    assert pid is not None

    async def has_moved() -> bool:
        return await mesh.counted("scheduler-0", name) > before

    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(has_moved, within_s=MOVED_WITHIN_S)
    finally:
        os.kill(pid, signal.SIGCONT)
