"""Errors as answers of HTTP: statuses, headers, the body of OpenAI's format; and back. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from headrace.errors import (
    AttemptsExhausted,
    BodyTooLarge,
    CapacityError,
    Code,
    DeadlineExceeded,
    HeadraceError,
    InsufficientQuota,
    InternalError,
    RateLimitExceeded,
    RequestCancelled,
    RequestError,
    errors_by_reason,
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


_BY_STATUS = {
    400: "INVALID_REQUEST",
    401: "INVALID_API_KEY",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_NOT_FOUND",
    409: "RESOURCE_EXISTS",
    413: "BODY_TOO_LARGE",
    422: "INVALID_REQUEST",
    429: "RATE_LIMIT_EXCEEDED",
    499: "CANCELLED",
    504: "DEADLINE_EXCEEDED",
}
"""Of answers whose reason is not in the table: those of Envoy itself, or of a proxy."""
_PROXY = (502, 503)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> HeadraceError | None:
    """Return the error that an answer in OpenAI's format says.

    None: it is not the mesh's; a proxy, or Envoy, did not reach it or lost it on the way.
    """
    about = _about(body)
    kinds = errors_by_reason()
    kind = kinds.get(str(about.get("code", "")).upper())
    if kind is None:
        if status in _PROXY:
            return None
        kind = kinds[_BY_STATUS.get(status, InternalError.reason)]
    message = str(about.get("message") or f"the mesh answered {status} without a reason")
    error = kind(message, field=about.get("param"), retry_after_s=_retry_after_s(headers))
    error.request_id = headers.get("x-request-id", "")
    return error


def _about(body: bytes) -> dict[str, Any]:
    try:
        about = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return about if isinstance(about, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            pass
    return None
