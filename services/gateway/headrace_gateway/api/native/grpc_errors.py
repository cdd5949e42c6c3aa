"""Errors of typed calls: every one becomes the call's status."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from headrace.errors import HeadraceError, InternalError
from headrace.rpc.status import abort
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.base.calls import Context

log = logging.getLogger(__name__)

T = TypeVar("T")


INTERNAL_ERROR = "the gateway failed; its log says how"


async def abort_on_error(
    context: Context, work: Awaitable[T], counter: CallCounter | None = None
) -> T:
    """What the work returns; whatever goes wrong in it ends the call, and is logged once."""
    try:
        return await work
    except HeadraceError as error:
        failure = error
        log.info("call.failed", extra={"reason": error.reason, "field": error.field})
    except Exception:
        failure = InternalError(INTERNAL_ERROR)
        log.exception("call.broken")
    if counter is not None:
        counter.finish(failure)
    return await abort(context, failure)
