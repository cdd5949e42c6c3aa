"""Errors of gRPC calls: each becomes the status of its call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from headrace.errors import HeadraceError, InternalError
from headrace.rpc.status import abort
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.quota.call_limits import CallLimits

log = logging.getLogger(__name__)

T = TypeVar("T")

INTERNAL_ERROR = "the gateway failed; its log says how"


class EndedEarly(Exception):
    """The call ends with `error`, whose status has what was made before as one more detail."""

    def __init__(self, error: HeadraceError, so_far: Message) -> None:
        super().__init__(error.message)
        self.error, self.so_far = error, so_far


async def abort_on_error(
    context: Context, work: Awaitable[T], counter: CallCounter | None = None
) -> T:
    """Return what the work returns; an error in it ends the call, and is logged once.

    The limits that it notes are the call's initial metadata, which must not have been sent.
    """
    limits, so_far = CallLimits(), list[Message]()
    try:
        with limits.noted():
            done = await work
        await _send_limits(context, limits)
        return done
    except (HeadraceError, EndedEarly) as error:
        if isinstance(error, EndedEarly):
            failure, so_far = error.error, [error.so_far]
        else:
            failure = error
        log.info("call.failed", extra={"reason": failure.reason, "field": failure.field})
    except Exception:
        failure = InternalError(INTERNAL_ERROR)
        log.exception("call.broken")
    if counter is not None:
        counter.finish(failure)
    await _send_limits(context, limits)
    return await abort(context, failure, so_far)


async def _send_limits(context: Context, limits: CallLimits) -> None:
    if limits.headers:
        await context.send_initial_metadata(limits.headers)


def counted(answer: Callable[[Any, Any, Call], Awaitable[Any]]) -> Any:
    """Make the gRPC handler of a method whose request names a model and has one response.

    The call is counted for that model, and an error becomes its status.
    """

    async def handler(self: ApiServicer, request: Any, context: Context) -> Any:
        with CallCounter("native", self.services.submitter.known(request.model)) as counter:
            work = answer(self, request, call_of(context))
            response = await abort_on_error(context, work, counter)
            counter.finish()
            return response

    return handler
