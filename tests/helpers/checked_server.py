"""A server whose calls are checked, and handlers that note who called."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.auth.caller import Caller
from headrace.auth.check.access import Access
from headrace.auth.check.interceptor import current_caller
from headrace.auth.settings import AccessSettings
from headrace.bus import Bus
from headrace.clock import SystemClock
from headrace.errors import (
    HeadraceError,
)
from headrace.rpc.server import add_health_and_reflection, bind, make_server
from headrace.rpc.status import from_rpc_error
from headrace.v1 import probes_pb2
from headrace.v1.models_pb2 import (
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    TokenizeResponse,
)
from headrace.v1.models_pb2_grpc import (
    ModelServiceServicer,
    ModelServiceStub,
    add_ModelServiceServicer_to_server,
)
from headrace.v1.probes_pb2_grpc import (
    ProbeServiceServicer,
    add_ProbeServiceServicer_to_server,
)

EDGE = "edge-secret"
PROBES = probes_pb2.DESCRIPTOR  # the stubs alone do not load the options of its methods


class Handlers(ModelServiceServicer, ProbeServiceServicer):
    """Notes who called."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    async def ListModels(self, request: ListModelsRequest, context: object) -> ListModelsResponse:
        self.callers.append(current_caller())
        return ListModelsResponse()

    async def GetModel(self, request: GetModelRequest, context: object) -> Model:
        raise AssertionError("only rejected calls are sent here")

    async def Tokenize(self, request: object, context: object) -> TokenizeResponse:
        raise AssertionError("not called")

    async def Ping(self, request: Empty, context: object) -> HttpBody:
        raise AssertionError("not called")

    async def GetVersion(self, request: Empty, context: object) -> HttpBody:
        raise AssertionError("not called")

    async def GetOpenApi(self, request: Empty, context: object) -> HttpBody:
        raise AssertionError("not called")

    async def GetHealth(self, request: Empty, context: object) -> HttpBody:
        self.callers.append(current_caller())
        return HttpBody()


class Served:
    def __init__(self, channel: grpc.aio.Channel, handlers: Handlers, access: Access) -> None:
        self.channel, self.handlers, self.access = channel, handlers, access

    async def list_models(self, key: str = "", **headers: str) -> Caller:
        metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if key:
            metadata.append(("authorization", f"Bearer {key}"))
        await ModelServiceStub(self.channel).ListModels(ListModelsRequest(), metadata=metadata)
        return self.handlers.callers[-1]

    async def error(self, key: str = "", **headers: str) -> HeadraceError:
        called = len(self.handlers.callers)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.list_models(key, **headers)
        assert len(self.handlers.callers) == called
        return from_rpc_error(raised.value)


async def _undescribed(request: bytes, context: object) -> bytes:
    raise AssertionError("a call of it was admitted")


@asynccontextmanager
async def serving(bus: Bus, settings: AccessSettings, header: str = "") -> AsyncIterator[Served]:
    access = Access(settings, bus, SystemClock(), "g-1", tenant_header=header)
    server, handlers = make_server([access.interceptor]), Handlers()
    add_ModelServiceServicer_to_server(handlers, server)
    add_ProbeServiceServicer_to_server(handlers, server)
    add_health_and_reflection(server, ["headrace.v1.ModelService"])
    calls: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(_undescribed)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("headrace.tests.Unknown", calls),)
    )
    port = bind(server, "127.0.0.1", 0)
    async with access.running(), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await server.start()
        try:
            yield Served(channel, handlers, access)
        finally:
            await server.stop(0)
