"""Runs each call of the API: only in office, and with errors that callers can read.

Methods raise HeadraceErrors; callers get them as google.rpc.Status. Whatever else they raise is
logged and becomes InternalError.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from headrace.bus import BusError
from headrace.errors import ControlUnavailable, HeadraceError, InternalError
from headrace.rpc.status import abort

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
RETRY_S = 1.0
OWN_PACKAGE = "/headrace.admin.v1."
"""Of the methods that only the active process serves; health and reflection are served by all."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of headrace.admin.v1; `is_active` says whether this process may serve."""

    def __init__(self, is_active: Callable[[], bool]) -> None:
        self._is_active = is_active

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        method = handler_call_details.method
        if found is None or not method.startswith(OWN_PACKAGE):
            return found
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, found.unary_stream),
                found.request_deserializer,
                found.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, found.unary_unary),
            found.request_deserializer,
            found.response_serializer,
        )

    def _unary(self, method: str, serve: Callable[..., Awaitable[Any]]) -> Any:
        async def served(request: Any, context: Context) -> Any:
            try:
                self._require_office()
                return await serve(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # top of the call's task
                await abort(context, as_headrace_error(error, method))

        return served

    def _streaming(self, method: str, serve: Callable[..., AsyncIterator[Any]]) -> Any:
        async def served(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._require_office()
                async for each in serve(request, context):
                    yield each
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # top of the call's task
                await abort(context, as_headrace_error(error, method))

        return served

    def _require_office(self) -> None:
        if not self._is_active():
            raise ControlUnavailable(
                f"this control process stands by, another is active; retry in {RETRY_S:g} s",
                retry_after_s=RETRY_S,
            )


def as_headrace_error(error: Exception, method: str) -> HeadraceError:
    """Return what the caller gets for an error of a method, and log what is no caller's fault."""
    match error:
        case HeadraceError():
            return error
        case BusError():
            log.warning("api.no_broker", extra={"method": method, "why": str(error)})
            return ControlUnavailable(
                f"the broker cannot be reached; retry in {RETRY_S:g} s", retry_after_s=RETRY_S
            )
        case _:
            log.error("api.failed", extra={"method": method}, exc_info=error)
            return InternalError("the call failed by a fault of Headrace, which control's log has")
