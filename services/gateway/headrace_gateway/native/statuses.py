"""Errors of typed calls: every one becomes the call's status."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from headrace.errors import HeadraceError, InternalError
from headrace.rpc.status import abort
from headrace_gateway.calls import Context

log = logging.getLogger(__name__)

T = TypeVar("T")


async def told_by_status(context: Context, work: Awaitable[T]) -> T:
    """What the work returns; whatever goes wrong in it ends the call, and is logged once."""
    try:
        return await work
    except HeadraceError as error:
        await abort(context, error)
    except Exception:
        log.exception("call.failed")
        await abort(context, InternalError("the gateway failed; its log says how"))
