"""A caller's end of a call that is answered with bytes: HTTP through Envoy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import HeadraceError, InternalError
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.answering import Answer, GenerationFailed
from headrace_gateway.calls import Context
from headrace_gateway.generation import Queued
from headrace_gateway.tally import Tally
from headrace_gateway.transcript import Said

log = logging.getLogger(__name__)

_INLINE_OUTCOME_BYTES = 64 * 1024

JSON = "application/json"
EVENTS = "text/event-stream"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Or what else is sent in one piece."""

    status: int
    body: bytes
    headers: Headers


class Voice(Protocol):
    """How a door says what went wrong."""

    def refusal(self, error: HeadraceError) -> Refusal:
        """Where nothing has been sent."""
        ...

    def failure(self, error: HeadraceError, usage: Usage | None) -> str:
        """The last event of a stream."""
        ...


class Dialect(Protocol):
    """How a door says one answer."""

    @property
    def eager(self) -> bool:
        """Whether a stream opens on admission, or with its first news.

        Opening late lets a request that fails in its lane have its own HTTP status.
        """
        ...

    def opening(self) -> str: ...

    def said(self, news: Iterable[Said]) -> str:
        """May be empty."""
        ...

    def queued(self, queued: Queued) -> str:
        """That it waits; never empty, so that proxies see the stream live."""
        ...

    def ending(self, usage: Usage) -> str: ...

    def whole(self, outcome: RequestOutcome) -> bytes: ...


class Reply:
    """Sends the head with the first bytes; tells an error by status before, by event after.

    After its end, which is the last event, a body in one piece or an error, it is silent.
    """

    def __init__(self, context: Context, voice: Voice, request_id: str, tally: Tally) -> None:
        self._context = context
        self._voice = voice
        self._tally = tally
        self._headed = False
        self._over = False
        self._more: Headers = ()
        self.request_id = request_id
        """What the head will say; a caller may have named its request itself."""

    def add_header(self, name: str, value: str) -> None:
        """To the head of whatever is answered; call it before that."""
        self._more = (*self._more, (name, value))

    async def send(self, data: bytes) -> None:
        """All of it: a JSON body."""
        await self._send(Refusal(200, data, ()), JSON)
        self._end()

    async def accept(self, data: bytes, request_id: str) -> None:
        """That it goes on without this caller, and under which name."""
        self.request_id = request_id
        await self._send(Refusal(202, data, (("location", f"/v2/requests/{request_id}"),)), JSON)
        self._end()

    async def send_pieces(self, pieces: AsyncIterable[bytes]) -> None:
        """The same in pieces, where it is large."""
        async for piece in pieces:
            if self._headed:
                await self._context.write(HttpBody(data=piece))
            else:
                await self._send(Refusal(200, piece, ()), JSON)
        self._end()

    async def send_events(self, events: str, *, last: bool) -> None:
        """Waits while the caller is slow to read."""
        if self._headed:
            await self._context.write(HttpBody(data=events.encode()))
        else:
            no_cache = (("cache-control", "no-cache"),)
            await self._send(Refusal(200, events.encode(), no_cache), EVENTS)
        if last:
            self._end()

    async def fail(self, error: HeadraceError, usage: Usage | None = None) -> None:
        if self._over:
            return
        log.info(
            "call.failed",
            extra={"request_id": self.request_id, "reason": error.reason, "field": error.field},
        )
        if self._headed:
            await self.send_events(self._voice.failure(error, usage), last=True)
        else:
            await self._send(self._voice.refusal(error), JSON)
        self._end(error)

    async def _send(self, answer: Refusal, content_type: str) -> None:
        self._headed = True
        status = (("x-hr-status", str(answer.status)),) if answer.status != 200 else ()
        head = (("x-request-id", self.request_id), *status, *answer.headers, *self._more)
        await self._context.send_initial_metadata(head)
        await self._context.write(HttpBody(content_type=content_type, data=answer.body))

    def _end(self, error: HeadraceError | None = None) -> None:
        self._over = True
        self._tally.told(error)


def queue_comment(queued: Queued) -> str:
    """For a stream of server-sent events; clients pass over it.

    Without an empty line: behind an event with an id, that would be an event without data
    to OpenAI's clients, and an error.
    """
    if queued.ahead is None:
        return ": waiting\n"
    known = queued.wait_s is not None
    estimate = f" estimated_wait={queued.wait_s:.1f}s" if known else ""
    return f": queue position={queued.ahead}{estimate}\n"


@asynccontextmanager
async def told(reply: Reply) -> AsyncIterator[None]:
    """Whatever goes wrong inside is said to the caller, and logged once."""
    try:
        yield
    except HeadraceError as error:
        await reply.fail(error)
    except Exception:
        log.exception("call.broken", extra={"request_id": reply.request_id})
        await reply.fail(InternalError("the gateway failed; its log says how"))


async def deliver(answer: Answer, reply: Reply, dialect: Dialect, *, stream: bool) -> None:
    """Say an answer to its end, and settle it; left half-way, it is abandoned."""
    async with answer:
        try:
            if stream:
                await _stream(answer, reply, dialect)
            else:
                async for _ in answer:
                    pass
                await reply.send(await _whole(dialect, answer.outcome()))
        except GenerationFailed as failed:
            await reply.fail(failed.error, answer.usage())
        await answer.settle()


async def _whole(dialect: Dialect, outcome: RequestOutcome) -> bytes:
    """Long answers are written in a thread: with logprobs they can take a tenth of a second."""
    if outcome.ByteSize() <= _INLINE_OUTCOME_BYTES:
        return dialect.whole(outcome)
    return await asyncio.to_thread(dialect.whole, outcome)


async def _stream(answer: Answer, reply: Reply, dialect: Dialect) -> None:
    opening = dialect.opening()
    if dialect.eager:
        await reply.send_events(opening, last=False)
        opening = ""
    async for news in answer:
        if answer.queued is not None:
            await reply.send_events(dialect.queued(answer.queued), last=False)
            continue
        events = dialect.said(news)
        if answer.complete:
            events += dialect.ending(answer.usage())
        # Why not the opening alone: a failure that comes first keeps its HTTP status.
        if events:
            await reply.send_events(opening + events, last=answer.complete)
            opening = ""
        if answer.complete:
            return
