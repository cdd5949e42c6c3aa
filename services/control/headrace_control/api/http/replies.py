"""Answers of OpenAI's APIs: JSON, errors, and bytes in pieces.

Statuses and headers travel as initial metadata, which Envoy turns into the response's own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import HeadraceError
from headrace.rpc.http_errors import Headers, error_headers, http_status, openai_error
from headrace_control.api.calls import Context
from headrace_control.api.http.drain import drain

BODY_BYTES = "x-hr-body-bytes"
"""Of a request: its Content-Length, as Envoy has read it. Of a response: what Envoy makes its
Content-Length, by which clients know a body that breaks off from a whole one."""


async def send_json(context: Context, body: Mapping[str, Any]) -> HttpBody:
    """Send the head of a response; return its body."""
    await _send_head(context, 200)
    return _json(body)


async def send_error(request: Any, context: Context, error: HeadraceError) -> HttpBody:
    """Send the head of an error's response; return its body. Of a request that is a stream, the
    rest is read first."""
    if isinstance(request, AsyncIterator):
        await drain(request)
    await _send_head(context, http_status(error), error_headers(error))
    return _json(openai_error(error))


async def send_head(context: Context, size: int, headers: Headers = ()) -> None:
    """Send the head of a response whose body, of `size` bytes, follows in pieces."""
    await _send_head(context, 200, ((BODY_BYTES, str(size)), *headers))


def header(context: Context, name: str) -> str:
    """Return a header of the request; empty: it has none."""
    found = context.invocation_metadata() or ()
    return next((str(value) for key, value in found if key == name), "")


def _json(body: Mapping[str, Any]) -> HttpBody:
    return HttpBody(content_type="application/json", data=json.dumps(body).encode())


async def _send_head(context: Context, status: int, headers: Headers = ()) -> None:
    own = (("x-hr-status", str(status)),) if status != 200 else ()
    await context.send_initial_metadata((*own, ("cache-control", "no-store"), *headers))
