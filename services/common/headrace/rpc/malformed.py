"""Rejects messages that cannot be parsed with INVALID_ARGUMENT.

gRPC itself ends such a call with UNKNOWN, through a proxy 500, and logs a stack trace.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.errors import InvalidRequest
from headrace.rpc.status import abort


@dataclass(frozen=True, slots=True)
class _Malformed:
    fact: str


class RejectMalformed(grpc.aio.ServerInterceptor):
    """Interceptor of calls with one request message, which must be one that can be parsed."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None or found.request_streaming:
            return found
        parse = _parsing(found.request_deserializer)
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _rejecting(found.unary_stream), parse, found.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _rejecting(found.unary_unary), parse, found.response_serializer
        )


def _parsing(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return parse


def _rejecting(serve: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(serve):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            if isinstance(request, _Malformed):
                await abort(context, _error(request))
            async for message in serve(request, context):
                yield message

        return generated

    async def served(request: Any, context: Any) -> Any:
        if isinstance(request, _Malformed):
            await abort(context, _error(request))
        return await serve(request, context)

    return served


def _error(request: _Malformed) -> InvalidRequest:
    return InvalidRequest(f"the message cannot be read: {request.fact}")
