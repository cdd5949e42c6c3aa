"""A gateway without a mesh behind it, with prepared answers, for tests of Envoy."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.credentials.tls_files import TlsFiles
from headrace.errors import HeadraceError, ModelNotFound
from headrace.rpc.roles import EDGE_ROLES
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.rpc.status import abort
from headrace.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    openai_pb2_grpc,
    rest_pb2,
    rest_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]
SERVICES = ("headrace.v1.OpenAIService", "headrace.v1.GenerationService")


def sse(data: object) -> HttpBody:
    text = data if isinstance(data, str) else json.dumps(data)
    return HttpBody(content_type="text/event-stream", data=f"data: {text}\n\n".encode())


@dataclass
class Seen:
    """What reached the gateway."""

    metadata: list[dict[str, str]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)


class OpenAI(openai_pb2_grpc.OpenAIServiceServicer):
    """`/v1/completions` does what the body's "do" says; the others echo."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def Completions(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        self.seen.metadata.append({k: str(v) for k, v in context.invocation_metadata() or ()})
        body = json.loads(request.data)
        match body["do"]:
            case "echo":
                yield HttpBody(content_type="application/json", data=request.data)
            case "size":
                yield HttpBody(content_type="application/json", data=b"%d" % len(request.data))
            case "refuse":
                await context.send_initial_metadata(
                    (("x-hr-status", str(body["status"])), ("retry-after", "7"))
                )
                error = {"error": {"message": "no", "type": "t", "param": None, "code": "c"}}
                yield HttpBody(content_type="application/json", data=json.dumps(error).encode())
            case "abort":
                await context.abort(grpc.StatusCode[body["code"]], "no")
            case "stream":
                yield sse({"n": 0})
                await self.seen.may_go_on.wait()
                yield sse({"n": 1})
                yield sse("[DONE]")
            case "wait":
                await self.seen.may_go_on.wait()
                yield HttpBody(content_type="application/json", data=request.data)
            case "hang":
                try:
                    yield sse({"n": 0})
                    await asyncio.Event().wait()
                finally:
                    self.seen.cancelled.set()

    async def GetModel(
        self, request: models_pb2.GetModelRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        body = json.dumps({"id": request.model}).encode()
        yield HttpBody(content_type="application/json", data=body)

    async def ListModels(self, request: Empty, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=b'{"data": []}')


class Rest(rest_pb2_grpc.RestServiceServicer):
    async def Generate(
        self, request: rest_pb2.RestModelRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        body = {"model": request.model, "bytes": request.body.data.decode()}
        yield HttpBody(content_type="application/json", data=json.dumps(body).encode())


class Models(models_pb2_grpc.ModelServiceServicer):
    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        return models_pb2.ListModelsResponse(models=[models_pb2.Model(name="pebble")])

    async def GetModel(
        self, request: models_pb2.GetModelRequest, context: Context
    ) -> models_pb2.Model:
        error: HeadraceError = ModelNotFound(f"no model {request.model!r}", field="model")
        await abort(context, error)


class Generations(generation_pb2_grpc.GenerationServiceServicer):
    async def StreamGenerate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        for text in request.prompt.split():
            delta = generation_pb2.Delta(text=text)
            yield generation_pb2.StreamGenerateResponse(delta=delta)


@asynccontextmanager
async def standin_gateway(
    *, serving: bool = True, tls: TlsFiles | None = None
) -> AsyncIterator[tuple[Seen, int]]:
    """A gateway on a free port, and whether its health says that it serves."""
    seen = Seen()
    server = make_server(tls=tls, roles=EDGE_ROLES)
    # Methods that are not written here answer UNIMPLEMENTED, which mypy cannot know.
    openai_pb2_grpc.add_OpenAIServiceServicer_to_server(
        OpenAI(seen),  # type: ignore[abstract]
        server,
    )
    rest_pb2_grpc.add_RestServiceServicer_to_server(
        Rest(),  # type: ignore[abstract]
        server,
    )
    models_pb2_grpc.add_ModelServiceServicer_to_server(
        Models(),  # type: ignore[abstract]
        server,
    )
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(
        Generations(),  # type: ignore[abstract]
        server,
    )
    health = add_health_and_reflection(server, SERVICES)
    port = bind(server, "127.0.0.1", 0, tls)
    await server.start()
    await set_serving(health, SERVICES, serving=serving)
    try:
        yield seen, port
    finally:
        await server.stop(grace=0)
