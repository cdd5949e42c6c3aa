"""What a call's metadata says, apart from its message."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from headrace_gateway.base.generated_ids import RANDOM_CHARACTERS, draw_id

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_BAGGAGE = 1024
"""Bytes of tracestate and of baggage; they travel in every message about the request."""

LAST_EVENT_ID = "last-event-id"

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Call:
    request_id: str
    """Ours, drawn for this call; also the x-request-id of an answer that opens no request."""
    time_remaining_s: float | None
    trace_context: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Text values by lower-case name; of one that came twice, both with a comma between."""
    last_event_id: str = ""
    """Header of a reader who has a part of an answer, and wants the rest."""


def call_of(context: Context) -> Call:
    metadata = context.invocation_metadata() or ()
    return Call(
        request_id=draw_id(secrets.token_hex(RANDOM_CHARACTERS // 2)),
        time_remaining_s=context.time_remaining(),
        trace_context=trace_context(metadata),
        headers=_headers(metadata),
        last_event_id=next((str(v) for k, v in metadata if k == LAST_EVENT_ID), ""),
    )


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str):
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def trace_context(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """W3C trace context; without a well-formed traceparent there is none."""
    values = {key: value for key, value in metadata if isinstance(value, str)}
    traceparent = values.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return {}
    context = {"traceparent": traceparent}
    for key in ("tracestate", "baggage"):
        if 0 < len(values.get(key, "")) <= _MAX_BAGGAGE:
            context[key] = values[key]
    return context
