"""A partition: workers cannot reach their gateway, but all processes reach the broker."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers.cut_line import HOST, cut_line
from helpers.eventually import eventually
from helpers.exact_clients import Clients
from helpers.service_process import ServiceProcess, service_process

STREAMS, TOKENS = 8, 300
WORKER: Any = {
    "engine": "scripted",
    "model_name": "scripted",
    "max_slots": STREAMS,
    "scripted_step_s": 0.01,
    "orphan_grace_s": 1.0,
}
WITHIN_S = 60.0


async def given_up(workers: list[ServiceProcess]) -> bool:
    """Whether a worker has put requests back, since their gateway stays out of its reach."""
    name = "headrace_worker_orphaned_requests_total"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for worker in workers:
            text = (await http.get(f"http://127.0.0.1:{worker.ports['metrics']}/metrics")).text
            families = text_string_to_metric_families(text)
            if any(s.value for family in families for s in family.samples if s.name == name):
                return True
    return False


@pytest.mark.timeout(180)
async def test_streams_continue_token_for_token_after_a_partition_from_their_gateway(
    nats_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        broker = {"nats_url": nats_url}
        line, port = await stack.enter_async_context(cut_line())
        line.lead_to(port)
        await stack.enter_async_context(
            service_process("headrace_scheduler", tmp_path, "scheduler", **broker)
        )
        behind = {"advertised_host": HOST, "delivery_port": port, "lame_duck_s": 0}
        gateway = await stack.enter_async_context(
            service_process("headrace_gateway", tmp_path, "gateway", **behind, **broker)
        )
        workers = [
            await stack.enter_async_context(
                service_process("headrace_worker", tmp_path, f"worker-{n}", **WORKER, **broker)
            )
            for n in range(2)
        ]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}")
        await stack.enter_async_context(channel)
        clients = Clients(channel)
        await eventually(clients.is_served, within_s=WITHIN_S)
        expected = await asyncio.gather(*(clients.generate(n, TOKENS) for n in range(STREAMS)))
        clients.under_way.clear()
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(clients.generate(n, TOKENS)) for n in range(STREAMS)]
            await eventually(lambda: len(clients.under_way) == STREAMS, within_s=WITHIN_S)
            line.cut()
            await eventually(lambda: given_up(workers), within_s=WITHIN_S)
            assert not any(task.done() for task in streams), "the line was cut too late"
            line.mend()
        assert [task.result() for task in streams] == expected
        assert line.connections >= len(workers)
