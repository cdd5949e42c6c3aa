"""Messages that are no messages: refused as the caller's fault, which gRPC alone would not do.

It ends such a call with UNKNOWN, through a proxy 500, and writes a stack trace into the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.errors import InvalidRequest
from headrace.rpc.status import abort

Serve = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Unreadable:
    fact: str


class RejectMalformed(grpc.aio.ServerInterceptor):
    """Calls with one message from their caller; it comes to a handler only if it can be read."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None or found.request_streaming:
            return found
        read = _reading(found.request_deserializer)
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _refusing(found.unary_stream), read, found.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _refusing(found.unary_unary), read, found.response_serializer
        )


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read


def _refusing(serve: Serve) -> Serve:
    async def served(request: Any, context: Any) -> Any:
        if isinstance(request, _Unreadable):
            await abort(context, InvalidRequest(f"the message cannot be read: {request.fact}"))
        return await serve(request, context)

    return served
