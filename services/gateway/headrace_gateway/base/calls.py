"""The metadata of a call: its caller, headers, deadline and trace context.

One interceptor admits every call; handlers read its caller with the rest of the metadata by
`call_of(context)`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from headrace.auth.caller import Caller
from headrace.auth.check.authenticator import SECRET_HEADERS
from headrace.auth.check.edge import HEADERS as EDGE_HEADERS
from headrace.auth.check.interceptor import current_caller
from headrace.errors import InvalidRequest
from headrace_gateway.base.generated_ids import RANDOM_CHARACTERS, draw_id

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_BAGGAGE = 1024
"""Bytes of tracestate and of baggage; they travel in every message about the request."""

LAST_EVENT_ID = "last-event-id"

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]

_HIDDEN = SECRET_HEADERS | EDGE_HEADERS
"""What only the check of the caller reads; it reaches no log and no record."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """The row of a batch that a call is for."""

    batch_id: str
    line: int
    fresh: bool = False
    """No call for it was made before."""

    @property
    def name(self) -> str:
        """Of its request."""
        return f"{self.batch_id}_{self.line}"

    def run_name(self, run: int) -> str:
        """Return the name of its request of this run; the first is 0."""
        return f"{self.name}_{run}" if run else self.name


@dataclass(frozen=True, slots=True)
class Call:
    caller: Caller
    request_id: str
    """Generated for this call; also the x-request-id of a response that opens no request."""
    time_remaining_s: float | None
    trace_context: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Text values by lower-case name, without keys and cookies; the values of a repeated header are
    joined by a comma."""
    last_event_id: str = ""
    """The header Last-Event-ID: the client has the answer up to this event."""
    row: BatchRow | None = None
    """Set if control's feeder of batches makes the call."""


def call_of(context: Context) -> Call:
    """Return the metadata of the call that this task serves."""
    metadata = context.invocation_metadata() or ()
    headers = headers_of(metadata)
    return Call(
        caller=current_caller(),
        request_id=new_request_id(),
        time_remaining_s=context.time_remaining(),
        trace_context=trace_context(metadata),
        headers=headers,
        last_event_id=next((str(v) for k, v in metadata if k == LAST_EVENT_ID), ""),
    )


CACHE_HEADER = "x-headrace-cache"
_USE_CACHE = "use"


def wants_cache(call: Call) -> bool:
    """Return whether the call may be answered from a cache.

    Raises:
        InvalidRequest: its header has another value than `use`.
    """
    given = call.headers.get(CACHE_HEADER)
    if given not in (None, _USE_CACHE):
        raise InvalidRequest(
            f"{CACHE_HEADER} is {given[:64]!a}; it may be {_USE_CACHE!r}, or be left out",
            field=CACHE_HEADER,
        )
    return given is not None


def new_request_id() -> str:
    """Return an id for a call, or for the request that it opens."""
    return draw_id(secrets.token_hex(RANDOM_CHARACTERS // 2))


def headers_of(metadata: Metadata) -> dict[str, str]:
    """Return the text values by lower-case name; values of a repeated header are joined."""
    headers: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str) and key not in _HIDDEN:
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def trace_context(metadata: Metadata) -> dict[str, str]:
    """Return the W3C trace context; it is empty without a well-formed traceparent."""
    values = {key: value for key, value in metadata if isinstance(value, str)}
    traceparent = values.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return {}
    context = {"traceparent": traceparent}
    for key in ("tracestate", "baggage"):
        if 0 < len(values.get(key, "")) <= _MAX_BAGGAGE:
            context[key] = values[key]
    return context
