"""A caller's end of a call that is answered with bytes: HTTP through Envoy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import HeadraceError, InternalError
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.base.calls import Context
from headrace_gateway.base.keepalive import KeepAlive, kept_alive
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.generation import Queued

log = logging.getLogger(__name__)

_INLINE_OUTCOME_BYTES = 64 * 1024

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

Headers = tuple[tuple[str, str], ...]

_STREAM_HEADERS: Headers = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""Of a stream: no proxy may keep it, and nginx, which holds answers back by default, passes it on
as it comes."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Or what else is sent in one piece."""

    status: int
    body: bytes
    headers: Headers


class ErrorFormat(Protocol):
    """How a door says what went wrong."""

    def error_response(self, error: HeadraceError) -> HttpResponse:
        """Where nothing has been sent."""
        ...

    def error_event(self, error: HeadraceError, usage: Usage | None) -> str:
        """The last event of a stream."""
        ...


class ResponseFormat(Protocol):
    """How a door says one answer."""

    @property
    def eager(self) -> bool:
        """Whether a stream opens on admission, or with its first news.

        Opening late lets a request that fails in its lane have its own HTTP status.
        """
        ...

    def opening(self) -> str: ...

    def events(self, news: Iterable[ChoiceDelta]) -> str:
        """May be empty."""
        ...

    def queued(self, queued: Queued) -> str:
        """That it waits; empty where the reader is not told of each change."""
        ...

    def keep_alive(self, queued: Queued | None) -> str:
        """A comment, never empty, for a stream that has been silent; `queued` if it waits."""
        ...

    def ending(self, usage: Usage) -> str: ...

    def response_body(self, outcome: RequestOutcome) -> bytes: ...


class Reply:
    """Sends the head with the first bytes; tells an error by status before, by event after.

    After its end, which is the last event, a body in one piece or an error, it is silent.
    """

    def __init__(
        self, context: Context, error_format: ErrorFormat, request_id: str, counter: CallCounter
    ) -> None:
        self._context = context
        self._error_format = error_format
        self._tally = counter
        self._head_sent = False
        self._finished = False
        self._last_write_s = asyncio.get_running_loop().time()
        self._extra_headers: Headers = ()
        self.request_id = request_id
        """What the head will say; a caller may have named its request itself."""
        self.write_lock = asyncio.Lock()
        """Held while events are written: by the answer, or by what keeps its stream alive."""

    @property
    def silent_s(self) -> float:
        """Time since something was last written; before that, since the call came."""
        return asyncio.get_running_loop().time() - self._last_write_s

    def add_header(self, name: str, value: str) -> None:
        """To the head of whatever is answered; call it before that."""
        self._extra_headers = (*self._extra_headers, (name, value))

    async def send(self, data: bytes) -> None:
        """All of it: a JSON body."""
        await self._send(HttpResponse(200, data, ()), JSON)
        self._finish()

    async def accept(self, data: bytes, request_id: str) -> None:
        """That it goes on without this caller, and under which name."""
        self.request_id = request_id
        await self._send(
            HttpResponse(202, data, (("location", f"/v2/requests/{request_id}"),)), JSON
        )
        self._finish()

    async def send_pieces(self, pieces: AsyncIterable[bytes]) -> None:
        """The same in pieces, where it is large."""
        async for piece in pieces:
            if self._head_sent:
                await self._context.write(HttpBody(data=piece))
            else:
                await self._send(HttpResponse(200, piece, ()), JSON)
        self._finish()

    async def open_stream(self) -> None:
        """Send the head of a stream, if that has not been done, before there is any event."""
        async with self.write_lock:
            if not self._head_sent:
                await self._write_events("")

    async def send_events(self, events: str, *, last: bool) -> None:
        """Waits while the caller is slow to read."""
        async with self.write_lock:
            await self._write_events(events)
            if last:
                self._finish()

    async def _write_events(self, events: str) -> None:
        if self._head_sent:
            await self._context.write(HttpBody(data=events.encode()))
        else:
            await self._send(HttpResponse(200, events.encode(), _STREAM_HEADERS), EVENT_STREAM)
        self._last_write_s = asyncio.get_running_loop().time()

    async def fail(self, error: HeadraceError, usage: Usage | None = None) -> None:
        if self._finished:
            return
        log.info(
            "call.failed",
            extra={"request_id": self.request_id, "reason": error.reason, "field": error.field},
        )
        if self._head_sent:
            await self.send_events(self._error_format.error_event(error, usage), last=True)
        else:
            await self._send(self._error_format.error_response(error), JSON)
        self._finish(error)

    async def _send(self, answer: HttpResponse, content_type: str) -> None:
        self._head_sent = True
        status = (("x-hr-status", str(answer.status)),) if answer.status != 200 else ()
        head = (("x-request-id", self.request_id), *status, *answer.headers, *self._extra_headers)
        await self._context.send_initial_metadata(head)
        await self._context.write(HttpBody(content_type=content_type, data=answer.body))

    def _finish(self, error: HeadraceError | None = None) -> None:
        self._finished = True
        self._tally.finish(error)


def comment(queued: Queued | None, *, ids: bool) -> str:
    """For a stream of server-sent events; clients pass over it.

    Where events have ids it has no empty line behind it: to OpenAI's clients that would be an
    event without data, and an error. Where they have none it has one, because clients that part
    events at empty lines (vLLM's benchmark) would take what follows for a part of the comment.
    """
    return f": {_state(queued)}\n" if ids else f": {_state(queued)}\n\n"


def _state(queued: Queued | None) -> str:
    if queued is None:
        return "keep-alive"
    if queued.ahead is None:
        return "waiting"
    known = queued.wait_s is not None
    estimate = f" estimated_wait={queued.wait_s:.1f}s" if known else ""
    return f"queue position={queued.ahead}{estimate}"


@asynccontextmanager
async def handle_errors(reply: Reply) -> AsyncIterator[None]:
    """Whatever goes wrong inside is said to the caller, and logged once."""
    try:
        yield
    except HeadraceError as error:
        await reply.fail(error)
    except Exception:
        log.exception("call.broken", extra={"request_id": reply.request_id})
        await reply.fail(InternalError("the gateway failed; its log says how"))


async def deliver(
    answer: Answer, reply: Reply, response_format: ResponseFormat, *, alive: KeepAlive | None
) -> None:
    """Say an answer to its end, and settle it; left half-way, it is abandoned.

    Args:
        alive: how a stream is kept alive; None for an answer in one piece.
    """
    async with answer:
        try:
            if alive is not None:
                async with kept_alive(
                    reply, lambda: response_format.keep_alive(answer.queued), alive
                ):
                    await _stream(answer, reply, response_format)
            else:
                async for _ in answer:
                    pass
                await reply.send(
                    await serialize_in_thread(response_format.response_body, answer.outcome())
                )
        except GenerationFailed as failed:
            await reply.fail(failed.error, answer.usage())
        await answer.settle()


async def serialize_in_thread(
    write: Callable[[RequestOutcome], bytes], outcome: RequestOutcome
) -> bytes:
    """Long answers are written in a thread: with logprobs they can take a tenth of a second."""
    if outcome.ByteSize() <= _INLINE_OUTCOME_BYTES:
        return write(outcome)
    return await asyncio.to_thread(write, outcome)


async def _stream(answer: Answer, reply: Reply, response_format: ResponseFormat) -> None:
    opening = response_format.opening()
    if response_format.eager:
        await reply.send_events(opening, last=False)
        opening = ""
    async for news in answer:
        if answer.queued is not None:
            if queued := response_format.queued(answer.queued):
                await reply.send_events(queued, last=False)
            continue
        events = response_format.events(news)
        if answer.complete:
            events += response_format.ending(answer.usage())
        # Why not the opening alone: a failure that comes first keeps its HTTP status.
        if events:
            await reply.send_events(opening + events, last=answer.complete)
            opening = ""
        if answer.complete:
            return
