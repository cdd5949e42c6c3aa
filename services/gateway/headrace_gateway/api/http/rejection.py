"""Answers calls that were not admitted, in the format of the API that was called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from headrace.auth.check.interceptor import Handler
from headrace.errors import Code, HeadraceError
from headrace.rpc.http_errors import CHALLENGE
from headrace.rpc.status import abort
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import ErrorFormat
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.base.calls import Context, new_request_id

H = TypeVar("H")

Rejecting = Callable[[HeadraceError, Any, Context], Awaitable[None]]


def rejected_by(reject: Rejecting, handler: H) -> H:
    """Mark a handler: calls of it that are not admitted are answered by `reject`."""
    handler.reject = reject  # type: ignore[attr-defined]
    return handler


async def reject_call(
    handler: Handler, error: HeadraceError, request: Any, context: Context
) -> None:
    """Answer a call in place of its handler: as the handler says, else with the status of gRPC."""
    reject: Rejecting = getattr(handler, "reject", _abort)
    await reject(error, request, context)


async def send_rejection(
    context: Context, api: str, errors: ErrorFormat, error: HeadraceError
) -> None:
    """Send the error as an HTTP answer."""
    with CallCounter(api) as counter:
        await Reply(context, errors, new_request_id(), counter).fail(error)


async def _abort(error: HeadraceError, request: Any, context: Context) -> None:
    with CallCounter("native") as counter:
        counter.finish(error)
        if error.code is Code.UNAUTHENTICATED:
            await context.send_initial_metadata(CHALLENGE)
        await abort(context, error)
