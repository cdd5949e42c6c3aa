"""Answers in JSON, and errors as the page reads them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import HeadraceError, InternalError

log = logging.getLogger(__name__)

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}

Handler = Callable[[Request], Awaitable[Response]]


def reply(content: Any, status: int = 200) -> Response:
    """Return JSON that no cache keeps."""
    return Response(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        status,
        _HEADERS,
        "application/json",
    )


def error_reply(error: HeadraceError) -> Response:
    """Return {"error": {"code", "message", "field"}} with the status of the error."""
    shown = {"code": error.reason, "message": error.message}
    if error.field is not None:
        shown["field"] = error.field
    response = reply({"error": shown}, error.code.http_status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return response


def errors_sent(serve: Handler) -> Handler:
    """Answer what a handler raises."""

    @wraps(serve)
    async def served(request: Request) -> Response:
        try:
            return await serve(request)
        except HeadraceError as error:
            return error_reply(error)
        except Exception:
            log.exception("call.failed", extra={"path": request.url.path})
            return error_reply(InternalError("web failed; its log says how"))

    return served
