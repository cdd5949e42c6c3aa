"""Every worker of a model dies and another starts later: no request is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from helpers.eventually import eventually
from helpers.exact_clients import Clients
from helpers.service_process import ServiceProcess, service_process

STREAMS, MORE, TOKENS = 8, 8, 200
WORKER: Any = {
    "engine": "scripted",
    "model_name": "scripted",
    "max_slots": STREAMS,
    "scripted_step_s": 0.01,
}
SETTLED_WITHIN_S = 60.0


async def held(gateway: ServiceProcess) -> float:
    """Requests that the gateway has admitted and that have not ended."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        url = f"http://127.0.0.1:{gateway.ports['metrics']}/metrics"
        lines = (await http.get(url)).text.splitlines()
    name = "headrace_gateway_open_requests "
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.timeout(240)
async def test_requests_wait_for_the_next_worker_and_keep_the_output_they_have(
    nats_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        broker = {"nats_url": nats_url}
        await stack.enter_async_context(
            service_process("headrace_scheduler", tmp_path, "scheduler", **broker)
        )
        gateway = await stack.enter_async_context(
            service_process("headrace_gateway", tmp_path, "gateway", lame_duck_s=0, **broker)
        )
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}")
        await stack.enter_async_context(channel)
        clients = Clients(channel)
        async with (
            asyncio.TaskGroup() as group,
            service_process("headrace_worker", tmp_path, "first", **WORKER, **broker) as first,
        ):
            await eventually(clients.is_served, within_s=SETTLED_WITHIN_S)
            expected = await asyncio.gather(*(clients.generate(n, TOKENS) for n in range(STREAMS)))
            clients.under_way.clear()
            ran = [group.create_task(clients.generate(n, TOKENS)) for n in range(STREAMS)]
            await eventually(lambda: len(clients.under_way) == STREAMS, within_s=SETTLED_WITHIN_S)
            first.process.kill()
            await first.process.wait()
            waited = [group.create_task(clients.generate(50 + n, TOKENS)) for n in range(MORE)]
            await eventually(lambda: has_all(gateway), within_s=SETTLED_WITHIN_S)
            assert not any(task.done() for task in (*ran, *waited))
            refused = clients.refused
            async with service_process("headrace_worker", tmp_path, "second", **WORKER, **broker):
                assert [await task for task in ran] == expected
                for task in waited:
                    await task
            assert clients.refused == refused


async def has_all(gateway: ServiceProcess) -> bool:
    return await held(gateway) == STREAMS + MORE
