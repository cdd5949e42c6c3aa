"""Errors in the formats of the APIs: OpenAI's, Cohere's and text-embeddings-inference's.

HTTP statuses and headers come from the one error table, whatever the format of the body.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.errors import (
    AttemptsExhausted,
    CapacityError,
    Code,
    DeadlineExceeded,
    HeadraceError,
    InsufficientQuota,
    RateLimitExceeded,
    RequestCancelled,
    RequestError,
)
from headrace.v1.common_pb2 import Usage

Headers = tuple[tuple[str, str], ...]
ErrorBody = Callable[[HeadraceError], dict[str, Any]]

CHALLENGE: Headers = (("www-authenticate", "Bearer"),)
_NOT_RETRYABLE = (RequestError, DeadlineExceeded, RequestCancelled, AttemptsExhausted)
"""What fails again when it is sent again, though its status says 409 or 5xx."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response that is sent in one piece."""

    status: int
    body: bytes
    headers: Headers = ()


class ErrorFormat(Protocol):
    """How an API reports an error."""

    def error_response(self, error: HeadraceError) -> HttpResponse:
        """Return the response to a call of which nothing has been sent."""
        ...

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        """Return what ends a stream, or a body of which a part has been sent."""
        ...


class JsonErrorFormat:
    def __init__(self, body: ErrorBody, *, event_prefix: str = "", event_suffix: str = "") -> None:
        """The prefix and suffix make an event of the body; without them the API has no streams."""
        self._body, self._prefix, self._suffix = body, event_prefix, event_suffix

    def error_response(self, error: HeadraceError) -> HttpResponse:
        body = json.dumps(self._body(error)).encode()
        return HttpResponse(http_status(error), body, error_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        # Why no [DONE] follows: clients would take the answer for a complete one.
        return f"{self._prefix}{json.dumps(self._body(error))}{self._suffix}"


def http_status(error: HeadraceError) -> int:
    """Return Envoy's status of the error, but 400 for what is not served: clients retry a 501."""
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


def _cohere_error(error: HeadraceError) -> dict[str, str]:
    return {"message": error.message}


def _tei_error(error: HeadraceError) -> dict[str, str]:
    if isinstance(error, RequestError) and error.code is not Code.RESOURCE_EXHAUSTED:
        kind = "Validation"
    elif error.code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE):
        kind = "Overloaded"
    else:
        kind = "Backend"
    return {"error": error.message, "error_type": kind}


OPENAI_ERRORS = JsonErrorFormat(openai_error, event_prefix="data: ", event_suffix="\n\n")
COHERE_ERRORS = JsonErrorFormat(_cohere_error)
TEI_ERRORS = JsonErrorFormat(_tei_error)
"""The format of text-embeddings-inference."""
