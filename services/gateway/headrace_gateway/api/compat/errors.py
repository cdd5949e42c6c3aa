"""Pure room: errors in the shapes of other serving systems; statuses and headers are ours."""

from __future__ import annotations

import json
from collections.abc import Callable

from headrace.errors import Code, HeadraceError, RequestError
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.errors import http_status, retry_headers
from headrace_gateway.api.http.reply import HttpResponse


class JsonErrorFormat:
    """Errors of an API without streams."""

    def __init__(self, body: Callable[[HeadraceError], dict[str, str]]) -> None:
        self._body = body

    def error_response(self, error: HeadraceError) -> HttpResponse:
        return HttpResponse(
            http_status(error), json.dumps(self._body(error)).encode(), retry_headers(error)
        )

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        """Behind a part of a body, which is then no JSON any more: its reader must notice."""
        return json.dumps(self._body(error))


def _cohere(error: HeadraceError) -> dict[str, str]:
    return {"message": error.message}


def _tei(error: HeadraceError) -> dict[str, str]:
    if isinstance(error, RequestError):
        kind = "Validation"
    elif error.code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE):
        kind = "Overloaded"
    else:
        kind = "Backend"
    return {"error": error.message, "error_type": kind}


COHERE_ERRORS = JsonErrorFormat(_cohere)
TEI_ERRORS = JsonErrorFormat(_tei)
"""Of text-embeddings-inference."""
