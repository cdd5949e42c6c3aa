"""Runs each call of the APIs: only in the active process, and with errors that callers can read.

The answer to a change comes once gateways have the change. Methods raise HeadraceErrors; callers
get them as google.rpc.Status, or, of OpenAI's APIs, as JSON. Whatever else they raise is logged and
becomes InternalError.
"""

from __future__ import annotations

import asyncio
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
_READING = ("Get", "List", "Watch", "Export")
"""How the names of methods begin that change nothing."""
ADMIN_PACKAGE, OPENAI_PACKAGE = "/headrace.admin.v1.", "/headrace.v1."
"""Of the methods that only the active process serves; health and reflection are served by all.
Those of the second answer with HTTP: each returns a stream of HttpBody."""

SendError = Callable[[Any, Context, HeadraceError], Awaitable[Any]]
"""Sends the head of an error's response to a request, and returns its body."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of ADMIN_PACKAGE and OPENAI_PACKAGE. It answers calls that an interceptor
    behind it has rejected, too."""

    def __init__(
        self,
        *,
        is_active: Callable[[], bool],
        settled: Callable[[], Awaitable[None]],
        settle_s: float,
        send_error: SendError,
    ) -> None:
        """
        Args:
            is_active: whether this process may serve.
            settled: returns once all that is committed has been published.
            settle_s: how long an answer waits for that.
            send_error: answers calls of OPENAI_PACKAGE that fail.
        """
        self._is_active, self._settled, self._settle_s = is_active, settled, settle_s
        self._send_error = send_error

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        method = handler_call_details.method
        if found is None or not method.startswith((ADMIN_PACKAGE, OPENAI_PACKAGE)):
            return found
        if found.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, found.stream_stream),
                found.request_deserializer,
                found.response_serializer,
            )
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
                self._require_active()
                answer = await serve(request, context)
                await self._settle(method)
                return answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # top of the call's task
                await abort(context, as_headrace_error(error, method))

        return served

    def _streaming(self, method: str, serve: Callable[..., AsyncIterator[Any]]) -> Any:
        async def served(request: Any, context: Context) -> AsyncIterator[Any]:
            is_first = True
            try:
                self._require_active()
                async for each in serve(request, context):
                    if is_first:
                        await self._settle(method)
                        is_first = False
                    yield each
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # top of the call's task
                failed = as_headrace_error(error, method)
                if not is_first or not method.startswith(OPENAI_PACKAGE):
                    await abort(context, failed)
                yield await self._send_error(request, context, failed)

        return served

    async def _settle(self, method: str) -> None:
        """Wait until gateways have what the call has changed: a session that is shown to a browser
        holds everywhere, and a revoked key nowhere."""
        if method.rpartition("/")[2].startswith(_READING):
            return
        try:
            async with asyncio.timeout(self._settle_s):
                await self._settled()
        except (TimeoutError, ControlUnavailable) as error:
            # The change is stored, and answered: it is published once broker and database are back.
            why = str(error) or f"not within {self._settle_s:g} s"
            log.warning("api.not_published_yet", extra={"method": method, "why": why})

    def _require_active(self) -> None:
        if not self._is_active():
            raise ControlUnavailable(
                "this control process is not active: another one is, or its broker or database is"
                f" away; retry in {RETRY_S:g} s",
                retry_after_s=RETRY_S,
            )


async def raise_rejected(
    handler: Callable[..., Any], error: HeadraceError, request: Any, context: Context
) -> None:
    """Have a call that was not admitted fail as one whose method raises the error.

    For `Access`, behind a CallInterceptor.
    """
    raise error


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
