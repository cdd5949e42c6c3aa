"""Errors in the formats of the APIs: OpenAI's, Anthropic's, Cohere's, text-embeddings-inference's.

HTTP statuses and headers come from the one error table, whatever the format of the body; but what
is 503 elsewhere is 529 in Anthropic's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.errors import Code, ContextLengthExceeded, HeadraceError, RequestError
from headrace.rpc.http_errors import Headers, error_headers, http_status, openai_error
from headrace.v1.common_pb2 import Usage
from headrace_gateway.quota.headers import LimitHeaders, anthropic_headers, rate_limit_headers

ErrorBody = Callable[[HeadraceError], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response that is sent in one piece."""

    status: int
    body: bytes
    headers: Headers = ()

    def beside(self, members: bytes) -> HttpResponse:
        """Return it with the members of another JSON object."""
        body = json.dumps(json.loads(members) | json.loads(self.body)).encode()
        return HttpResponse(self.status, body, self.headers)


class ErrorFormat(Protocol):
    """How an API reports an error, and what is left of limits."""

    @property
    def limit_headers(self) -> LimitHeaders: ...

    def error_response(self, error: HeadraceError, request_id: str) -> HttpResponse:
        """Return the response to a call of which nothing has been sent."""
        ...

    def error_event(self, error: HeadraceError, usage: Usage | None, request_id: str) -> str:
        """Return what ends a stream, or a body of which a part has been sent."""
        ...


class JsonErrorFormat:
    def __init__(self, body: ErrorBody, *, event_prefix: str = "", event_suffix: str = "") -> None:
        """The prefix and suffix make an event of the body; without them the API has no streams."""
        self._body, self._prefix, self._suffix = body, event_prefix, event_suffix

    @property
    def limit_headers(self) -> LimitHeaders:
        return rate_limit_headers

    def error_response(self, error: HeadraceError, request_id: str) -> HttpResponse:
        body = json.dumps(self._body(error)).encode()
        return HttpResponse(http_status(error), body, error_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None, request_id: str) -> str:
        # Why no [DONE] follows: clients would take the answer for a complete one.
        return f"{self._prefix}{json.dumps(self._body(error))}{self._suffix}"


class AnthropicErrorFormat:
    @property
    def limit_headers(self) -> LimitHeaders:
        return anthropic_headers

    def error_response(self, error: HeadraceError, request_id: str) -> HttpResponse:
        status = http_status(error)
        status = _OVERLOADED if status == Code.UNAVAILABLE.http_status else status
        body = json.dumps(_anthropic_error(error, status, request_id)).encode()
        return HttpResponse(status, body, error_headers(error))

    def error_event(self, error: HeadraceError, usage: Usage | None, request_id: str) -> str:
        body = _anthropic_error(error, http_status(error), request_id)
        return f"event: error\ndata: {json.dumps(body)}\n\n"


_OVERLOADED = 529
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _anthropic_error(error: HeadraceError, status: int, request_id: str) -> dict[str, Any]:
    # 499, of a request that was cancelled, is of no type of its own.
    other = "api_error" if status > 413 else "invalid_request_error"
    message = error.message
    if isinstance(error, ContextLengthExceeded):
        # Anthropic's words, by which clients know that they have to shorten the conversation.
        message = f"prompt is too long: {message}"
    body = {"type": _ANTHROPIC_TYPES.get(status, other), "message": message}
    return {"type": "error", "error": body, "request_id": request_id}


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
ANTHROPIC_ERRORS = AnthropicErrorFormat()
COHERE_ERRORS = JsonErrorFormat(_cohere_error)
TEI_ERRORS = JsonErrorFormat(_tei_error)
"""The format of text-embeddings-inference."""
