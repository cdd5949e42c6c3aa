"""Rejects messages that are missing or cannot be parsed with INVALID_ARGUMENT.

gRPC itself ends a call whose message cannot be parsed with UNKNOWN, through a proxy 500, and logs a
stack trace. A call that ends before its message, or within it, it never ends at all: no handler is
called, and a caller without a key holds the stream for as long as Envoy lets it be idle.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.errors import InvalidRequest
from headrace.rpc.status import abort

_NO_MESSAGE = "the call ended before its message was complete"


class RejectMalformed(grpc.aio.ServerInterceptor):
    """Interceptor of calls with one request message, which must be one that can be parsed.

    Put it first: it turns their handlers into those of streams, and reads the one message of each.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None or found.request_streaming:
            return found
        parse = found.request_deserializer
        if found.response_streaming:
            serve = _reading(found.unary_stream, parse)
            return grpc.stream_stream_rpc_method_handler(serve, None, found.response_serializer)
        serve = _reading(found.unary_unary, parse)
        return grpc.stream_unary_rpc_method_handler(serve, None, found.response_serializer)


def _reading(serve: Callable[..., Any], parse: Callable[[bytes], Any] | None) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(serve):

        async def generated(_: Any, context: Any) -> AsyncIterator[Any]:
            async for message in serve(await _read(context, parse), context):
                yield message

        return generated

    async def served(_: Any, context: Any) -> Any:
        return await serve(await _read(context, parse), context)

    return served


async def _read(context: Any, parse: Callable[[bytes], Any] | None) -> Any:
    """Return the call's message; abort the call where there is none."""
    data = await context.read()
    if data is grpc.aio.EOF:
        await abort(context, InvalidRequest(_NO_MESSAGE))
    try:
        return data if parse is None else parse(data)
    except DecodeError as error:
        await abort(context, InvalidRequest(f"the message cannot be read: {error}"))
