"""The API on a real gRPC server, and a real Envoy in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import openai
import pytest

from helpers.api_scripts import says
from helpers.running_api import RunningApi, running_api
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.scripted_admission import ScriptedAdmission


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(says)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission) as running:
        yield running


@pytest.fixture
async def channel(api: RunningApi) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(api.address) as channel:
        yield channel


@pytest.fixture
async def edge(tmp_path: Path, api: RunningApi) -> AsyncIterator[RunningEdge]:
    async with running_edge(tmp_path) as running:
        running.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{running.url}/v1/models")
        yield running


@pytest.fixture
async def http(edge: RunningEdge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def client(edge: RunningEdge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{edge.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client
