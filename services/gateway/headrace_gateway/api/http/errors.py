"""Errors as OpenAI's clients expect them: body, status and headers, from the one table."""

from __future__ import annotations

import json
import math
from typing import Any

from headrace.errors import (
    AttemptsExhausted,
    CapacityError,
    Code,
    DeadlineExceeded,
    HeadraceError,
    RequestCancelled,
    RequestError,
)
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.reply import HttpResponse

_TYPES = {429: "rate_limit_error"}

_NOT_AGAIN = (RequestError, DeadlineExceeded, RequestCancelled, AttemptsExhausted)
"""What fails again when it is sent again, though its status says 409 or 5xx."""


def http_status(error: HeadraceError) -> int:
    """As Envoy would say it, but 400 for what is not served: clients send a 501 again."""
    if error.code is Code.UNIMPLEMENTED:
        return 400
    return error.code.http_status


def error_body(error: HeadraceError) -> dict[str, Any]:
    status = http_status(error)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.field,
            "code": error.reason.lower(),
        }
    }


def retry_headers(error: HeadraceError) -> tuple[tuple[str, str], ...]:
    """When to come back, and whether at all."""
    if error.retry_after_s is not None:
        return (
            ("retry-after", str(max(1, math.ceil(error.retry_after_s)))),
            ("retry-after-ms", str(math.ceil(error.retry_after_s * 1000))),
            ("x-should-retry", "true"),
        )
    if isinstance(error, _NOT_AGAIN):
        return (("x-should-retry", "false"),)
    return (("x-should-retry", "true"),) if isinstance(error, CapacityError) else ()


class OpenAIErrorFormat:
    def error_response(self, error: HeadraceError) -> HttpResponse:
        body = json.dumps(error_body(error)).encode()
        return HttpResponse(http_status(error), body, retry_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        # No [DONE] follows: clients would take the answer for a good one.
        return f"data: {json.dumps(error_body(error))}\n\n"
