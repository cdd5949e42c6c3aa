"""Clients send their key with every call, and none where they have none."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from headrace.client import AsyncClient, Client
from headrace.rpc.server import bind, make_server
from headrace.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc

KEY = "hr_some_key"


class Recorder(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self.given: dict[str, str | bytes | None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        metadata = dict(details.invocation_metadata or ())
        self.given[details.method.rpartition("/")[2]] = metadata.get("authorization")
        return await continuation(details)


class Generations(generation_pb2_grpc.GenerationServiceServicer):
    async def StreamGenerate(
        self, request: generation_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        yield generation_pb2.StreamGenerateResponse(delta=generation_pb2.Delta(text="hi"))


class Models(models_pb2_grpc.ModelServiceServicer):
    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Any
    ) -> models_pb2.ListModelsResponse:
        return models_pb2.ListModelsResponse()


@pytest.fixture
async def serving() -> AsyncIterator[tuple[Recorder, str]]:
    recorder = Recorder()
    server = make_server([recorder])
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(
        Generations(),  # type: ignore[abstract]
        server,
    )
    models_pb2_grpc.add_ModelServiceServicer_to_server(
        Models(),  # type: ignore[abstract]
        server,
    )
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    yield recorder, f"http://127.0.0.1:{port}"
    await server.stop(grace=0)


@pytest.mark.parametrize("key", [KEY, None])
async def test_every_call_has_the_key(serving: tuple[Recorder, str], key: str | None) -> None:
    recorder, url = serving
    expected = None if key is None else f"Bearer {key}"
    async with AsyncClient(url, api_key=key) as client:
        await client.models()
        assert [event.delta.text async for event in client.stream("x", model="m")] == ["hi"]
    assert recorder.given == {"ListModels": expected, "StreamGenerate": expected}


async def test_the_blocking_client_sends_it_as_well(serving: tuple[Recorder, str]) -> None:
    recorder, url = serving

    def call() -> None:
        with Client(url, api_key=KEY) as client:
            client.models()
            list(client.stream("x", model="m"))

    await asyncio.to_thread(call)
    assert recorder.given == {"ListModels": f"Bearer {KEY}", "StreamGenerate": f"Bearer {KEY}"}
