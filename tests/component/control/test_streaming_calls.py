"""Calls of control's API that answer with a stream, through all of its interceptors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from headrace.admin.v1 import audit_pb2, keys_pb2, operations_pb2
from headrace.admin.v1.audit_pb2_grpc import AuditServiceStub
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.auth.scopes import ADMIN
from headrace.cli.console.admin_api import key_interceptors
from headrace.rpc.channels import aio_channel
from headrace.testing.nats_server import NatsServer
from helpers.control_api import ControlApi
from helpers.control_process import channel_to, control_process, serving


async def test_the_fleet_is_streamed_and_the_audit_exported(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with control_process(tmp_path, nats.url) as running:
        await serving(running)
        async with channel_to(running) as channel:
            fleets: list[operations_pb2.Fleet] = []
            request = operations_pb2.WatchFleetRequest()
            async for fleet in OperationServiceStub(channel).WatchFleet(request):
                fleets.append(fleet)
                if len(fleets) == 2:
                    break
            assert fleets[0].time.ToNanoseconds() < fleets[1].time.ToNanoseconds()
            export = audit_pb2.ExportAuditEventsRequest()
            bodies = [body async for body in AuditServiceStub(channel).ExportAuditEvents(export)]
            assert bodies[0].content_type == "application/x-ndjson"

            unread = b"\xff\xff"
            method = "/headrace.admin.v1.OperationService/WatchFleet"
            call = cast(Any, channel).unary_stream(method)
            with pytest.raises(grpc.aio.AioRpcError, match="the message cannot be read") as refused:
                await anext(aiter(call(unread)))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_key_that_is_revoked_watches_no_longer(admin: ControlApi) -> None:
    made = await admin.create_key("headrace", scopes=[ADMIN], models=[])
    interceptors = key_interceptors(made.secret)
    channel = aio_channel(f"127.0.0.1:{admin.port}", interceptors=interceptors)
    async with channel, asyncio.timeout(10):
        fleets = OperationServiceStub(channel).WatchFleet(operations_pb2.WatchFleetRequest())
        assert await fleets.read() is not grpc.aio.EOF
        await admin.keys.RevokeKey(keys_pb2.RevokeKeyRequest(name=made.key.name))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await _read_all(fleets)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass
