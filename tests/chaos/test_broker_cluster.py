"""Three brokers keep what is admitted; the one that leads is killed under load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import nats
import pytest

from headrace.testing.nats_server import NatsServer, nats_cluster
from helpers.eventually import eventually
from helpers.exact_clients import Clients
from helpers.service_process import service_process

LONG, SHORT = 400, 10
"""Tokens: at 10 ms each, one runs while the broker elects, the other comes and goes."""
STREAMS = 8
AFTER = 40
SLOTS = 12
LEADS_WITHIN_S = 60.0


@asynccontextmanager
async def mesh(folder: Path, brokers: list[NatsServer]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a gateway that is ready, before two schedulers and a worker."""
    broker = {"nats_url": ",".join(each.url for each in brokers), "nats_replicas": len(brokers)}
    worker = {"engine": "scripted", "model_name": "scripted", "max_slots": SLOTS}
    async with AsyncExitStack() as stack:
        for name in ("scheduler-0", "scheduler-1"):
            await stack.enter_async_context(
                service_process("headrace_scheduler", folder, name, **broker)
            )
        await stack.enter_async_context(
            service_process(
                "headrace_worker", folder, "worker", scripted_step_s=0.01, **worker, **broker
            )
        )
        gateway = await stack.enter_async_context(
            service_process("headrace_gateway", folder, "gateway", lame_duck_s=0, **broker)
        )
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}")
        await stack.enter_async_context(channel)
        yield channel


async def requests_stream(brokers: list[NatsServer]) -> dict[str, Any]:
    client = await nats.connect([each.url for each in brokers])
    try:
        answer = await client.request("$JS.API.STREAM.INFO.REQUESTS", b"", timeout=10)
    finally:
        await client.close()
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def leader(brokers: list[NatsServer]) -> NatsServer:
    """The broker that leads the stream of requests, once all replicas are current."""
    led_by: list[str] = []

    async def is_led() -> bool:
        cluster = (await requests_stream(brokers)).get("cluster", {})
        copies = cluster.get("replicas") or []
        led_by[:] = [cluster.get("leader") or ""]
        return bool(led_by[0]) and [each["current"] for each in copies] == [True] * 2

    await eventually(is_led, within_s=LEADS_WITHIN_S)
    return next(each for each in brokers if each.name == led_by[0])


async def is_settled(brokers: list[NatsServer]) -> bool:
    """Whether every request is settled."""
    stream = await requests_stream(brokers)
    return bool(stream.get("state", {}).get("messages") == 0)


@pytest.mark.timeout(240)
async def test_killing_the_leading_broker_loses_no_admitted_request(
    tmp_path: Path,
) -> None:
    async with (
        nats_cluster(tmp_path) as brokers,
        mesh(tmp_path, brokers) as channel,
        asyncio.TaskGroup() as group,
    ):
        clients = Clients(channel)
        numbers = range(STREAMS)
        await eventually(clients.is_served, within_s=LEADS_WITHIN_S)
        undisturbed = await asyncio.gather(*(clients.generate(n, LONG) for n in numbers))
        clients.under_way.clear()
        running = [group.create_task(clients.generate(n, LONG)) for n in numbers]
        await eventually(lambda: len(clients.under_way) == STREAMS, within_s=LEADS_WITHIN_S)
        waiting = [group.create_task(clients.generate(100 + n, LONG)) for n in range(STREAMS)]
        led = await leader(brokers)
        await led.kill()
        assert not any(task.done() for task in running)
        later = [group.create_task(clients.generate(200 + n, SHORT)) for n in range(AFTER)]
        assert [await each for each in running] == undisturbed
        for each in (*waiting, *later):
            await each
        left = [each for each in brokers if each is not led]
        await eventually(lambda: is_settled(left), within_s=LEADS_WITHIN_S)
