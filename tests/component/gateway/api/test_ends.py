"""An end is sent once its request is settled: a gateway that dies has billed what it has sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import httpx
import pytest

from headrace.v1 import generation_pb2_grpc
from headrace.v1.generation_pb2 import GenerateRequest
from helpers.eventually import eventually
from helpers.scripted_admission import ScriptedAdmission

CHAT: dict[str, Any] = {"model": "valley", "messages": [{"role": "user", "content": "Hello"}]}
PROMPTS: dict[str, Any] = {"model": "valley", "prompt": ["Hello"]}
Read = Callable[[], AsyncIterator[str]]


@pytest.fixture
def stored(admission: ScriptedAdmission) -> asyncio.Event:
    """Once it is set, results are stored."""
    admission.stored = asyncio.Event()
    return admission.stored


async def end_comes_once_settled(
    read: Read, admission: ScriptedAdmission, stored: asyncio.Event, end: str
) -> None:
    received: list[str] = []

    async def collect() -> None:
        async for piece in read():
            received.append(piece)

    reading = asyncio.create_task(collect())
    await eventually(lambda: bool(admission.generations and admission.generations[0].settled))
    assert end not in "".join(received).replace('": "', '":"')
    stored.set()
    await reading
    assert end in "".join(received).replace('": "', '":"')
    assert admission.generations[0].ends == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", PROMPTS)]
)
async def test_over_http(
    http: httpx.AsyncClient,
    admission: ScriptedAdmission,
    stored: asyncio.Event,
    path: str,
    body: dict[str, Any],
    stream: bool,
) -> None:
    async def read() -> AsyncIterator[str]:
        async with http.stream("POST", path, json=body | {"stream": stream}) as response:
            async for text in response.aiter_text():
                yield text

    await end_comes_once_settled(read, admission, stored, '"finish_reason":"stop"')


@pytest.mark.parametrize("stream", [True, False])
async def test_over_grpc(
    channel: grpc.aio.Channel, admission: ScriptedAdmission, stored: asyncio.Event, stream: bool
) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = GenerateRequest(model="valley", prompt="Hello")

    async def read() -> AsyncIterator[str]:
        if not stream:
            yield f"finish {{{await stub.Generate(request)}"
            return
        async for message in stub.StreamGenerate(request):
            yield str(message)

    await end_comes_once_settled(read, admission, stored, "finish {")
