"""Checks calls that came as REST: their message does not show what Envoy has passed over."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default

from headrace.errors import InvalidRequest
from headrace_control.api.calls import ADMIN_PACKAGE, Context
from headrace_control.api.rest_fields import check_body, check_query

BODY, TARGET = "x-hr-body", "x-envoy-original-path"
"""Set by Envoy, which removes them from what clients send: a body in base64, and path and query.
Believed of everybody: they can only have the call refused."""

_OF_BROWSERS = frozenset(
    f"headrace.admin.v1.SessionService.{name}" for name in ("BeginSignIn", "FinishSignIn")
)
"""Methods whose queries are others' as well: a provider adds parameters of its own."""


class RestCallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses REST calls of headrace.admin.v1 with unknown fields or parameters.

    Put it last: who may not make the call learns nothing of its fields.
    """

    def __init__(self) -> None:
        self._checked: dict[str, tuple[Any, Any]] = {}
        """By method: its handler, and the handler with the check."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found, method = await continuation(handler_call_details), handler_call_details.method
        if found is None or not method.startswith(ADMIN_PACKAGE):
            return found
        known = self._checked.get(method)
        if known is None or known[0] is not found:
            described = Default().FindMethodByName(method[1:].replace("/", "."))
            known = self._checked[method] = found, _checked(found, described)
        return known[1]


def _checked(found: Any, method: MethodDescriptor) -> Any:
    if found.response_streaming:
        serve_many = found.unary_stream

        async def generated(request: Any, context: Context) -> AsyncIterator[Any]:
            _check(method, context)
            async for each in serve_many(request, context):
                yield each

        return grpc.unary_stream_rpc_method_handler(
            generated, found.request_deserializer, found.response_serializer
        )
    serve = found.unary_unary

    async def served(request: Any, context: Context) -> Any:
        _check(method, context)
        return await serve(request, context)

    return grpc.unary_unary_rpc_method_handler(
        served, found.request_deserializer, found.response_serializer
    )


def _check(method: MethodDescriptor, context: Context) -> None:
    for name, value in context.invocation_metadata() or ():
        if name == BODY:
            check_body(method, _decoded(value))
        elif name == TARGET and method.full_name not in _OF_BROWSERS:
            check_query(method, str(value))


def _decoded(value: str | bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise InvalidRequest(f"the header {BODY} is not base64") from None
