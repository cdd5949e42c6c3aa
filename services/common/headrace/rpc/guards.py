"""Checks of a call before a server's method sees it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Check = Callable[[Any], Awaitable[None]]
"""Given the context of a call; aborts what may not pass."""
_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


def service_of(call: grpc.HandlerCallDetails) -> str:
    """Return the full name of the service that is called."""
    return str(call.method).strip("/").partition("/")[0]


def guarded(handler: Any, check: Check) -> Any:
    """Return a handler like this one, whose calls are checked first."""
    kind = _KINDS[handler.request_streaming, handler.response_streaming]
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    serve = _checked(getattr(handler, kind), check)
    return make(serve, handler.request_deserializer, handler.response_serializer)


def _checked(serve: Callable[[Any, Any], Any], check: Check) -> Any:
    if inspect.isasyncgenfunction(serve):

        async def generated(request: Any, context: Any) -> Any:
            await check(context)
            async for message in serve(request, context):
                yield message

        return generated

    async def served(request: Any, context: Any) -> Any:
        await check(context)
        return await serve(request, context)

    return served
