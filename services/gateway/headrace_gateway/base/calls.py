"""The metadata of a call: its caller, headers, deadline and trace context.

One interceptor identifies the caller of every call; handlers read it with the rest of the metadata
by `call_of(context)`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc

from headrace.errors import InvalidRequest
from headrace_gateway.base.callers import Caller, caller_of
from headrace_gateway.base.generated_ids import RANDOM_CHARACTERS, draw_id
from headrace_gateway.base.settings import GatewaySettings

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_BAGGAGE = 1024
"""Bytes of tracestate and of baggage; they travel in every message about the request."""

LAST_EVENT_ID = "last-event-id"

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]

_CALLER: ContextVar[Caller | InvalidRequest] = ContextVar("caller", default=Caller())  # noqa: B039  # frozen
"""Of the call that this task serves; the error if its metadata names no valid caller."""


@dataclass(frozen=True, slots=True)
class Call:
    request_id: str
    """Generated for this call; also the x-request-id of a response that opens no request."""
    time_remaining_s: float | None
    trace_context: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Text values by lower-case name; the values of a repeated header are joined by a comma."""
    last_event_id: str = ""
    """The header Last-Event-ID: the client has the answer up to this event."""
    identified: Caller | InvalidRequest = field(default_factory=Caller)

    @property
    def caller(self) -> Caller:
        """Return the caller.

        Raises:
            InvalidRequest: the call's metadata names no valid caller.
        """
        if isinstance(self.identified, InvalidRequest):
            raise self.identified
        return self.identified


class CallerInterceptor(grpc.aio.ServerInterceptor):
    """Identifies the caller of each call from its metadata.

    A call without a valid caller still reaches its handler, which alone knows in which format to
    report the error.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        _CALLER.set(self._identify(handler_call_details.invocation_metadata))
        return await continuation(handler_call_details)

    def _identify(self, metadata: Metadata) -> Caller | InvalidRequest:
        try:
            return caller_of(headers_of(metadata), self._settings)
        except InvalidRequest as error:
            return error


def call_of(context: Context) -> Call:
    """Return the metadata of the call that this task serves."""
    metadata = context.invocation_metadata() or ()
    headers = headers_of(metadata)
    return Call(
        request_id=draw_id(secrets.token_hex(RANDOM_CHARACTERS // 2)),
        time_remaining_s=context.time_remaining(),
        trace_context=trace_context(metadata),
        headers=headers,
        last_event_id=next((str(v) for k, v in metadata if k == LAST_EVENT_ID), ""),
        identified=_CALLER.get(),
    )


def headers_of(metadata: Metadata) -> dict[str, str]:
    """Return the text values by lower-case name; values of a repeated header are joined."""
    headers: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str):
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
