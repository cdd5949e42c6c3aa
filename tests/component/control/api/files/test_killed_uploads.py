"""Uploads to a control process that is killed: nothing of them is left once the next one works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from headrace.bus import Bus
from headrace.testing.nats_server import NatsServer
from headrace.v1 import files_pb2, files_pb2_grpc
from helpers.control_process import channel_to, control_process, serving
from helpers.eventually import eventually

HEAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
)


async def form(*data: bytes, then: asyncio.Event | None = None) -> AsyncIterator[HttpBody]:
    """A form in messages, which ends after `then`."""
    yield HttpBody(content_type="multipart/form-data; boundary=b", data=HEAD)
    for each in data:
        yield HttpBody(data=each)
    if then is not None:
        await then.wait()
    yield HttpBody(data=b"\r\n--b--\r\n")


async def upload(channel: grpc.aio.Channel, messages: AsyncIterator[HttpBody]) -> HttpBody:
    stub: Any = files_pb2_grpc.FileServiceStub(channel)
    (answer,) = [message async for message in stub.UploadFile(messages)]
    return answer


async def test_a_killed_process_leaves_nothing_of_its_uploads(
    nats: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    async def is_stored() -> bool:
        return bool(await bus.object_names())

    async def is_gone() -> bool:
        return not await bus.object_names()

    async with control_process(tmp_path, nats.url, name="first") as first:
        await serving(first)
        async with channel_to(first) as channel:
            messages = form(b"x" * 600_000, then=asyncio.Event())
            uploading = asyncio.create_task(upload(channel, messages))
            await eventually(is_stored)
            first.process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await uploading
    assert await is_stored()
    async with control_process(tmp_path, nats.url, name="second") as second:
        await serving(second)
        await eventually(is_gone, within_s=10)
        async with channel_to(second) as channel:
            stub: Any = files_pb2_grpc.FileServiceStub(channel)
            (listed,) = [m async for m in stub.ListFiles(files_pb2.ListFilesRequest())]
            assert b'"data": []' in listed.data
            assert b'"bytes": 3' in (await upload(channel, form(b"abc"))).data


async def test_a_standby_takes_no_files(nats: NatsServer, tmp_path: Path) -> None:
    async with (
        control_process(tmp_path, nats.url, name="first") as first,
        control_process(tmp_path, nats.url, name="second") as second,
    ):
        await serving(first)
        async with channel_to(second) as channel:
            answer = await upload(channel, form(b"abc"))
        assert b"control_unavailable" in answer.data
