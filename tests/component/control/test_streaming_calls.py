"""Calls of control's API that answer with a stream, through all of its interceptors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from headrace.admin.v1 import audit_pb2, operations_pb2
from headrace.admin.v1.audit_pb2_grpc import AuditServiceStub
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.testing.nats_server import NatsServer
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
