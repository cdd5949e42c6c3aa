"""The caller's end of an HTTP call: what is sent to it goes through Envoy as bytes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import HeadraceError
from headrace.rpc.http_errors import Headers
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import ErrorFormat, HttpResponse
from headrace_gateway.base.cooperative import cooperatively, joined_chunks
from headrace_gateway.quota.call_limits import CallLimits

log = logging.getLogger(__name__)

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

_STREAM_HEADERS: Headers = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""No proxy may cache a stream; nginx, which buffers answers by default, passes it on."""


class ResponseWriter(Protocol):
    """What a response is written to: the context of a call, as gRPC has it."""

    async def send_initial_metadata(self, metadata: Any, /) -> None: ...

    async def write(self, message: Any, /) -> None: ...


class Reply:
    """Sends one response; an error is a status before the head is sent, and an event after it.

    After its end, which is the last event, a whole body or an error, nothing more is sent.
    """

    def __init__(
        self,
        context: ResponseWriter,
        error_format: ErrorFormat,
        request_id: str,
        counter: CallCounter,
    ) -> None:
        self._context = context
        self.error_format = error_format
        """A stream may replace it by one that knows what was sent."""
        self._counter = counter
        self._head_sent = False
        self._finished = False
        self._last_write_s = asyncio.get_running_loop().time()
        self._extra_headers: Headers = ()
        self.limits = CallLimits(error_format.limit_headers)
        """Of the call, whose headers go with the head."""
        self.request_id = request_id
        """The x-request-id of the head; a caller may have chosen the id of its request itself."""
        self.usage: Usage | None = None
        """Of the answer; set before a whole body is sent that says it."""
        self.write_lock = asyncio.Lock()
        """Held while events are written: by the answer, or by what keeps its stream alive."""

    @property
    def silent_s(self) -> float:
        """Return the time since the last write; before the first, since the call arrived."""
        return asyncio.get_running_loop().time() - self._last_write_s

    def add_header(self, name: str, value: str) -> None:
        """Add a header to the head, which must not have been sent."""
        self._extra_headers = (*self._extra_headers, (name, value))

    async def send(self, data: bytes) -> None:
        """Send a whole JSON body."""
        await self._send(HttpResponse(200, data), JSON)
        self._finish()

    async def send_json(self, value: object) -> None:
        await self.send(json.dumps(value).encode())

    async def accept(self, data: bytes, request_id: str) -> None:
        """Send 202: the request of this id runs on without its caller."""
        self.request_id = request_id
        location = ("location", f"/v2/requests/{request_id}")
        await self._send(HttpResponse(202, data, (location,)), JSON)
        self._finish()

    async def send_list(self, start: bytes, entries: Iterable[bytes], end: bytes) -> None:
        """Send a large JSON body piece by piece: a list of entries between its start and end."""
        async for piece in joined_chunks(_listed(start, entries, end)):
            await self._send(HttpResponse(200, piece), JSON)
        self._finish()

    async def open_stream(self) -> None:
        """Send the head of a stream before its first event, unless it has been sent."""
        async with self.write_lock:
            if not self._head_sent:
                await self._write_events("")

    async def send_events(self, events: str, *, last: bool) -> None:
        """Send events of a stream; wait while the caller is slow to read."""
        async with self.write_lock:
            await self._write_events(events)
            if last:
                self._finish()

    async def _write_events(self, events: str) -> None:
        await self._send(HttpResponse(200, events.encode(), _STREAM_HEADERS), EVENT_STREAM)
        self._last_write_s = asyncio.get_running_loop().time()

    async def fail(
        self, error: HeadraceError, usage: Usage | None = None, so_far: bytes = b""
    ) -> None:
        """Send the error, unless the response is complete.

        Args:
            so_far: JSON object whose members are sent beside the error's, if nothing has been sent.
        """
        if self._finished:
            return
        log.info(
            "call.failed",
            extra={"request_id": self.request_id, "reason": error.reason, "field": error.field},
        )
        if self._head_sent:
            event = self.error_format.error_event(error, usage, self.request_id)
            await self.send_events(event, last=True)
        else:
            response = self.error_format.error_response(error, self.request_id)
            await self._send(response.beside(so_far) if so_far else response, JSON)
        self._finish(error)

    async def _send(self, response: HttpResponse, content_type: str) -> None:
        """Send the body, or a further piece of it, whose head has been sent with the first."""
        if self._head_sent:
            await self._context.write(HttpBody(data=response.body))
            return
        self._head_sent = True
        status = (("x-hr-status", str(response.status)),) if response.status != 200 else ()
        head = (("x-request-id", self.request_id), *status, *response.headers)
        extra = (*self._extra_headers, *self.limits.headers)
        await self._context.send_initial_metadata((*head, *extra))
        await self._context.write(HttpBody(content_type=content_type, data=response.body))

    def _finish(self, error: HeadraceError | None = None) -> None:
        self._finished = True
        self._counter.finish(error)


async def _listed(start: bytes, entries: Iterable[bytes], end: bytes) -> AsyncIterator[bytes]:
    yield start
    async for index, entry in cooperatively(enumerate(entries)):
        yield b"," + entry if index else entry
    yield end
