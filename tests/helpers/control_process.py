"""Control as a process, with keys required or not, and what its callers see."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.rpc.channels import aio_channel
from helpers.eventually import eventually
from helpers.service_process import ServiceProcess, service_process


def write_peppers(file: Path, *ids: str) -> Path:
    """Write a pepper for each id, the current one first."""
    lines = [f"{each} {base64.b64encode(secrets.token_bytes(32)).decode()}\n" for each in ids]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    return file


def add_pepper(file: Path, pepper_id: str) -> None:
    """Make a new pepper the current one; the others stay."""
    old = file.read_text()
    file.write_text(write_peppers(file.with_name("new"), pepper_id).read_text() + old)


@asynccontextmanager
async def control_process(
    folder: Path, nats_url: str, *, name: str = "control", **settings: object
) -> AsyncIterator[ServiceProcess]:
    """A control process; its database is control.db in the folder unless settings say else."""
    chosen = {
        "nats_url": nats_url,
        "database_url": f"sqlite:///{folder / 'control.db'}",
        "lease_ttl_s": 2,
        "lease_acquire_s": 0.1,
    } | settings
    async with service_process("headrace_control", folder, name, **chosen) as running:
        yield running


def channel_to(running: ServiceProcess) -> grpc.aio.Channel:
    return aio_channel(f"127.0.0.1:{running.ports['grpc']}")


async def is_serving(running: ServiceProcess) -> bool:
    async with channel_to(running) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined]
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def serving(running: ServiceProcess, *, within_s: float = 15.0) -> None:
    """Return once the process is the active one."""

    async def serves() -> bool:
        return await is_serving(running)

    await eventually(serves, within_s=within_s)


async def readiness(running: ServiceProcess) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{running.ports['metrics']}/readyz")
