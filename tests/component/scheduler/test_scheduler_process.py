"""`python -m headrace_scheduler`: starts, reports that it is ready, and stops at a signal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from headrace.bus.jetstream import JetStreamBus
from headrace.testing.nats_server import NatsServer
from helpers.eventually import eventually
from helpers.scheduler_actors import GatewayActor, WorkerActor, find

START_S = 20.0
STOP_S = 10.0


@asynccontextmanager
async def process(nats_url: str, ports: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A scheduler process that exits with 0 at SIGTERM."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace_scheduler", "--nats-url", nats_url),
        *("--ports-file", str(ports), "--adoption-window-s", "0.3"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(ports.exists, within_s=START_S)
        yield started
        started.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), STOP_S) == 0
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


def address(ports: Path) -> str:
    return f"http://127.0.0.1:{json.loads(ports.read_text())['metrics']}"


async def status(ports: Path, path: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(address(ports) + path)).status_code


async def is_unready(ports: Path) -> bool:
    return await status(ports, "/readyz") == 503


async def test_a_process_serves_until_a_signal(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor, tmp_path: Path
) -> None:
    ports = tmp_path / "ports.json"
    async with process(nats_url, ports):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        assert await status(ports, "/readyz") == 200
        assert await status(ports, "/healthz") == 200
        assert await status(ports, "/metrics") == 200
        await gateway.settle("a")


async def test_without_its_broker_a_process_lives_but_is_not_ready(
    nats: NatsServer, tmp_path: Path
) -> None:
    ports = tmp_path / "ports.json"
    async with process(nats.url, ports):
        assert await status(ports, "/readyz") == 200
        await nats.kill()
        await eventually(lambda: is_unready(ports))
        assert await status(ports, "/healthz") == 200


async def test_a_leader_that_was_frozen_past_its_lease_dispatches_nothing_more(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor, tmp_path: Path
) -> None:
    async with process(nats_url, tmp_path / "first.json") as first:
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        async with process(nats_url, tmp_path / "second.json"):
            first.send_signal(signal.SIGSTOP)
            await gateway.submit("b")
            await eventually(lambda: "b" in worker.running, within_s=10)
            first.send_signal(signal.SIGCONT)
            await gateway.submit("c")
            await eventually(lambda: "c" in worker.running)
            assert [len(worker.attempts(i)) for i in "abc"] == [1, 1, 1]
            assert (await find(bus, "a")).found
