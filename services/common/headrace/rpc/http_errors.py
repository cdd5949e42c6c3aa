"""Errors as answers of HTTP: statuses, headers, and the body of OpenAI's format. Pure."""

from __future__ import annotations

import math
from typing import Any

from headrace.errors import (
    AttemptsExhausted,
    BodyTooLarge,
    CapacityError,
    Code,
    DeadlineExceeded,
    HeadraceError,
    InsufficientQuota,
    RateLimitExceeded,
    RequestCancelled,
    RequestError,
)

Headers = tuple[tuple[str, str], ...]

CHALLENGE: Headers = (("www-authenticate", "Bearer"),)
_NOT_RETRYABLE = (RequestError, DeadlineExceeded, RequestCancelled, AttemptsExhausted)
"""What fails again when it is sent again, though its status says 409 or 5xx."""


def http_status(error: HeadraceError) -> int:
    """Return Envoy's status of the error, but 400 for what is not served: clients retry a 501."""
    if isinstance(error, BodyTooLarge):
        return 413
    if error.code is Code.UNIMPLEMENTED:
        return 400
    return error.code.http_status


def error_headers(error: HeadraceError) -> Headers:
    """Return the headers that say when to retry, and whether to retry at all; and what a call
    without a valid key lacks."""
    challenge = CHALLENGE if error.code is Code.UNAUTHENTICATED else ()
    return challenge + _retry_headers(error)


def _retry_headers(error: HeadraceError) -> Headers:
    if error.retry_after_s is not None:
        retries = "false" if isinstance(error, RequestError) else "true"
        return (
            ("retry-after", str(max(1, math.ceil(error.retry_after_s)))),
            ("retry-after-ms", str(math.ceil(error.retry_after_s * 1000))),
            ("x-should-retry", retries),
        )
    if isinstance(error, _NOT_RETRYABLE):
        return (("x-should-retry", "false"),)
    return (("x-should-retry", "true"),) if isinstance(error, CapacityError) else ()


def openai_error(error: HeadraceError) -> dict[str, Any]:
    """Return the body of an error in OpenAI's format."""
    status = http_status(error)
    return {
        "error": {
            "message": error.message,
            "type": _openai_type(error, status),
            "param": error.field,
            "code": error.reason.lower(),
        }
    }


def _openai_type(error: HeadraceError, status: int) -> str:
    if isinstance(error, InsufficientQuota):
        return "insufficient_quota"
    if isinstance(error, RateLimitExceeded) and error.violation is not None:
        return "tokens" if error.violation.limit.startswith("tokens") else "requests"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
