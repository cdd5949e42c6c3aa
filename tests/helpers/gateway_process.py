"""A whole gateway process, and a mesh behind it that echoes."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from headrace.bus import Bus, subjects
from headrace.internal.v1.model_card_pb2 import ModelCard, TokenizerBundle
from headrace.internal.v1.reports_pb2 import (
    ServedModel,
    WorkerReport,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL, LeaderActor, leader, worker
from helpers.tiny_tokenizers import byte_level


class EchoMesh:
    """Scheduler and worker in one: answers each request with its own prompt, over and over."""

    def __init__(self, bus: Bus, *, pause_s: float = 0.0) -> None:
        self._bus = bus
        self._pause_s = pause_s
        self.served: list[RequestRecord] = []

    async def run(self) -> None:
        """Until cancelled."""
        bundle = TokenizerBundle(tokenizer_json=byte_level().to_str().encode())
        await self._bus.put_tokenizer("tiny", bundle.SerializeToString())
        card = ModelCard(
            model=MODEL,
            weights_digest="w1",
            tokenizer_digest="tiny",
            context_tokens=512,
            vocabulary_size=340,
            eos_token_ids=[1],
            max_slots=4,
        )
        await self._bus.put_card(MODEL, card.SerializeToString())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report(card))
            for priority in subjects.PRIORITIES:
                tasks.create_task(self._serve_lane(priority, tasks))

    async def _report(self, card: ModelCard) -> None:
        for number in itertools.count(1):
            served = ServedModel(card=card, total_slots=4, free_slots=4)
            report = WorkerReport(worker_id="echo-1", name="echo", number=number, models=[served])
            await self._bus.publish(subjects.WORKER_REPORTS, report.SerializeToString())
            await asyncio.sleep(0.1)

    async def _serve_lane(self, priority: str, tasks: asyncio.TaskGroup) -> None:
        lane = await self._bus.take_over(MODEL, priority)
        while True:
            for pulled in await lane.pull(max_messages=16, timeout_s=1.0):
                record = RequestRecord.FromString(pulled.payload)
                self.served.append(record)
                await lane.acknowledge(pulled.acknowledgement)
                tasks.create_task(self._answer(record))

    async def _answer(self, record: RequestRecord) -> None:
        count = record.sampling.max_tokens
        async with worker(record.delivery_address, "echo-1") as actor:
            for choice in range(record.n):
                slot = await actor.start(record.request_id, attempt=1, choice=choice)
                for index in range(count):
                    token = record.prompt_ids[index % len(record.prompt_ids)]
                    await actor.send(tokens=[(slot, index, token)])
                    await asyncio.sleep(self._pause_s)
                await actor.end(slot, output_tokens=count)
            await actor.finish()


@asynccontextmanager
async def echo_mesh(bus: Bus, *, pause_s: float = 0.0) -> AsyncIterator[EchoMesh]:
    mesh = EchoMesh(bus, pause_s=pause_s)
    running = asyncio.create_task(mesh.run())
    try:
        async with leader(bus) as actor:
            reporting = asyncio.create_task(_report_lanes(actor))
            try:
                yield mesh
            finally:
                reporting.cancel()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _report_lanes(actor: LeaderActor) -> None:
    while True:
        await actor.report(waiting=0, max_waiting=100)
        await asyncio.sleep(0.1)


class GatewayProcess:
    """`python -m headrace_gateway`, and what it says of itself."""

    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int]) -> None:
        self.process = process
        self.ports = ports

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    async def side(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.ports['metrics']}{path}")

    async def is_ready(self) -> bool:
        return (await self.side("/readyz")).status_code == 200

    async def has_had_a_token(self) -> bool:
        """Ready, and a canary has come through the whole path."""
        answer = await self.side("/readyz")
        return answer.status_code == 200 and "last token" in answer.text

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.process.wait()


@asynccontextmanager
async def gateway_process(
    nats_url: str, directory: Path, **settings: object
) -> AsyncIterator[GatewayProcess]:
    ports_file = directory / "gateway.json"
    chosen = {"nats_url": nats_url, "ports_file": ports_file, "lame_duck_s": 0} | settings
    flags = [
        part for key, value in chosen.items() for part in (f"--{key.replace('_', '-')}", str(value))
    ]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "headrace_gateway", *flags)
    gateway = GatewayProcess(process, {})
    try:
        await eventually(ports_file.exists, within_s=20.0)
        gateway.ports = json.loads(ports_file.read_text())
        yield gateway
    finally:
        await gateway.stop()
