"""Messages that are missing or cannot be parsed, for every kind of handler with one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from headrace.admin.v1.people_pb2 import GetPersonRequest
from headrace.errors import InvalidRequest
from headrace.rpc.channels import aio_channel
from headrace.rpc.malformed import RejectMalformed
from headrace.rpc.server import bind, make_server
from headrace.rpc.status import from_rpc_error

METHODS = ("Answer", "Write", "Yield")


async def _answer(request: GetPersonRequest, context: Any) -> bytes:
    return request.name.encode()


async def _write(request: GetPersonRequest, context: Any) -> None:
    await context.write(request.name.encode())


async def _yield(request: GetPersonRequest, context: Any) -> AsyncIterator[bytes]:
    yield request.name.encode()


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    parse = GetPersonRequest.FromString
    handlers: dict[str, Any] = {
        "Answer": grpc.unary_unary_rpc_method_handler(_answer, parse),
        "Write": grpc.unary_stream_rpc_method_handler(_write, parse),
        "Yield": grpc.unary_stream_rpc_method_handler(_yield, parse),
    }
    server = make_server([RejectMalformed()])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", handlers),))
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    async with aio_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(grace=0)


async def answer_of(channel: grpc.aio.Channel, method: str, message: bytes) -> bytes:
    path = f"/Test/{method}"
    unary: Any = channel.unary_unary(path)
    stream: Any = channel.unary_stream(path)
    if method == "Answer":
        return bytes(await unary(message))
    return b"".join([bytes(each) async for each in stream(message)])


@pytest.mark.parametrize("method", METHODS)
async def test_a_message_that_can_be_parsed_is_answered(
    channel: grpc.aio.Channel, method: str
) -> None:
    message = GetPersonRequest(name="people/me").SerializeToString()
    assert await answer_of(channel, method, message) == b"people/me"


@pytest.mark.parametrize("method", METHODS)
async def test_one_that_cannot_is_an_invalid_request(
    channel: grpc.aio.Channel, method: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answer_of(channel, method, b"\xff\xff")
    error = from_rpc_error(failed.value)
    assert isinstance(error, InvalidRequest)
    assert "the message cannot be read" in error.message


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_ends_before_its_message_is_an_invalid_request(
    channel: grpc.aio.Channel, method: str
) -> None:
    call: Any = channel.stream_stream(f"/Test/{method}")(iter(()), timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call.read()
    error = from_rpc_error(failed.value)
    assert isinstance(error, InvalidRequest)
    assert "before its message" in error.message
