"""Reads the JSON body of a call, and reports the fields of it that have no effect."""

from __future__ import annotations

from typing import TypeVar

from headrace.errors import InvalidRequest
from headrace_gateway.api.bodies.generation import parse
from headrace_gateway.api.bodies.strict_body import StrictBody
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.base import metrics
from headrace_gateway.base.calls import Call
from headrace_gateway.base.settings import GatewaySettings

STRICT_HEADER = "x-headrace-strict-fields"
IGNORED_HEADER = "x-headrace-ignored"

AnyBody = TypeVar("AnyBody", bound=StrictBody)


def read_body(
    kind: type[AnyBody], data: bytes, call: Call, limits: GatewaySettings, reply: Reply
) -> AnyBody:
    """Return the body; ignored fields are counted, and named in a header of the reply.

    Raises:
        InvalidRequest: it is no such body, or has unknown fields where they are refused.
        Unsupported: a field is known but not served.
    """
    unknown = UnknownFields(strict=_is_strict(call, limits))
    body = parse(kind, data, max_bytes=limits.max_body_bytes, unknown=unknown)
    for name in unknown.labels():
        metrics.ignored_fields_total.labels(name).inc()
    if unknown.count:
        reply.add_header(IGNORED_HEADER, unknown.header)
    return body


def _is_strict(call: Call, limits: GatewaySettings) -> bool:
    values = {"": limits.strict_fields, "true": True, "false": False}
    strict = values.get(call.headers.get(STRICT_HEADER, "").strip().lower())
    if strict is None:
        raise InvalidRequest(f"{STRICT_HEADER} should be true or false", field=STRICT_HEADER)
    return strict
