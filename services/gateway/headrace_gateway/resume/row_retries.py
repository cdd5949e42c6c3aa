"""Which ends of a batch's row are not its answer: the same row may succeed later. Pure."""

from __future__ import annotations

from headrace.errors import (
    CapacityError,
    HeadraceError,
    InsufficientQuota,
    RequestCancelled,
    RequestExists,
    RequestNotFound,
)
from headrace.rpc.status import from_status
from headrace_gateway.resume.location import Location

RETRY_S = 1.0
_ELSEWHERE = (RequestCancelled, RequestExists, RequestNotFound)
"""A gateway that could not submit a request cancels it; the others mean that the row's request was
just ending, or has just ended, somewhere else. Clients cannot reach the requests of rows."""


def retry_after_s(error: HeadraceError) -> float | None:
    """Return when a row that failed so is to be tried again; None: never."""
    match error:
        case CapacityError():
            return error.retry_after_s or RETRY_S
        case InsufficientQuota():
            return error.retry_after_s
    return RETRY_S if isinstance(error, _ELSEWHERE) else None


def may_run_again(location: Location) -> bool:
    """Return whether a row's request has ended so that another run of the row is to follow."""
    if location.result is None or not location.failed:
        return False
    return retry_after_s(from_status(location.result.outcome.error)) is not None
