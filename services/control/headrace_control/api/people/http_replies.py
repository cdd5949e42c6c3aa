"""Responses of methods that answer with HTTP: what is sent goes through Envoy as it is.

Statuses and headers travel as initial metadata, which Envoy turns into the response's own.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from headrace_control.api.calls import Context

Headers = Sequence[tuple[str, str]]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em}}
</style></head>
<body><h1>{title}</h1><p>{message}</p><p><a href="/ui/">Back to sign-in</a></p></body></html>
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


async def send_json(context: Context, message: Message, headers: Headers = ()) -> HttpBody:
    """Send the head of a response; return its body, the message as the other methods' are."""
    await _send_head(context, 200, headers)
    text = MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return HttpBody(content_type="application/json", data=text.encode())


async def send_redirect(context: Context, location: str, headers: Headers = ()) -> HttpBody:
    """Send the head of a redirect, which the browser follows with GET; return its empty body."""
    await _send_head(context, 303, [("location", location), *headers])
    return HttpBody(content_type="text/plain")


async def send_page(
    context: Context, status: int, title: str, message: str, headers: Headers = ()
) -> HttpBody:
    """Send the head of a page for people; return its body. The texts are escaped."""
    await _send_head(context, status, [("content-security-policy", _POLICY), *headers])
    page = _PAGE.format(title=html.escape(title), message=html.escape(message))
    return HttpBody(content_type="text/html; charset=utf-8", data=page.encode())


def header(context: Context, name: str) -> str:
    """Return a header of the request; the values of a repeated one are joined, as HTTP/2's
    cookies."""
    separator = "; " if name == "cookie" else ", "
    found = context.invocation_metadata() or ()
    return separator.join(str(value) for key, value in found if key == name)


async def _send_head(context: Context, status: int, headers: Headers) -> None:
    own = [("x-hr-status", str(status))] if status != 200 else []
    await context.send_initial_metadata((*own, ("cache-control", "no-store"), *headers))
