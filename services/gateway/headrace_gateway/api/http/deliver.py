"""Sends one answer to its caller, as a stream of events or as one body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from headrace.errors import InsufficientQuota
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.base.keepalive import kept_alive
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.generation import Queued

_INLINE_OUTCOME_BYTES = 64 * 1024


class ResponseFormat(Protocol):
    """How an API writes one answer."""

    @property
    def eager(self) -> bool:
        """Return whether a stream opens on admission, or with its first deltas.

        A request that fails in its lane has its own HTTP status where the stream opens late.
        """
        ...

    def opening(self) -> str: ...

    def events(self, deltas: Iterable[ChoiceDelta]) -> str:
        """Return the events of these deltas; may be empty."""
        ...

    def queued(self, queued: Queued) -> str:
        """Return what a change of the queue position sends; empty where it sends nothing."""
        ...

    def keep_alive(self, queued: Queued | None) -> str:
        """Return a comment, never empty, for a silent stream; `queued` if its request waits."""
        ...

    def ending(self, usage: Usage) -> str: ...

    def response_body(self, outcome: RequestOutcome) -> bytes: ...


def comment(queued: Queued | None, *, ids: bool) -> str:
    """Return a comment of server-sent events; clients ignore it.

    No empty line follows it where events have ids: to OpenAI's clients that would be an event
    without data, and an error. One follows it where they have none, because clients that split
    events at empty lines (vLLM's benchmark) would take the next event for a part of the comment.
    """
    return f": {_state(queued)}\n" if ids else f": {_state(queued)}\n\n"


def _state(queued: Queued | None) -> str:
    if queued is None:
        return "keep-alive"
    if queued.waits_for_quota:
        return "waiting for quota"
    if queued.ahead is None:
        return "waiting"
    known = queued.wait_s is not None
    estimate = f" estimated_wait={queued.wait_s:.1f}s" if known else ""
    return f"queue position={queued.ahead}{estimate}"


async def deliver(
    answer: Answer, http: HttpCall, response_format: ResponseFormat, *, stream: bool
) -> None:
    """Send an answer, and settle it before its end is sent; if cancelled earlier, abandon it."""
    reply, settings = http.reply, http.services.settings
    reply.request_id = answer.request.request_id
    async with answer:
        try:
            if stream:
                async with kept_alive(
                    reply, lambda: response_format.keep_alive(answer.queued), settings
                ):
                    await _stream(answer, reply, response_format)
            else:
                async for _ in answer:
                    pass
                await answer.settle()
                outcome = answer.outcome()
                reply.usage = outcome.usage
                await reply.send(await serialize_in_thread(response_format.response_body, outcome))
        except GenerationFailed as failed:
            await answer.settle()
            so_far = b""
            # Why: what was made is billed, and the same request would be refused again.
            if isinstance(failed.error, InsufficientQuota) and not stream:
                so_far = await serialize_in_thread(response_format.response_body, answer.outcome())
            await reply.fail(failed.error, answer.usage(), so_far)


async def serialize_in_thread(
    write: Callable[[RequestOutcome], bytes], outcome: RequestOutcome
) -> bytes:
    """Write an outcome, a large one in a thread: with logprobs it can take a tenth of a second."""
    if outcome.ByteSize() <= _INLINE_OUTCOME_BYTES:
        return write(outcome)
    return await asyncio.to_thread(write, outcome)


async def _stream(answer: Answer, reply: Reply, response_format: ResponseFormat) -> None:
    opening = response_format.opening()
    if response_format.eager:
        await reply.send_events(opening, last=False)
        opening = ""
    async for deltas in answer:
        if answer.queued is not None:
            if queued := response_format.queued(answer.queued):
                await reply.send_events(queued, last=False)
            continue
        events = response_format.events(deltas)
        if answer.complete:
            await answer.settle()
            events += response_format.ending(answer.usage())
        # Why not the opening alone: a failure that comes first keeps its HTTP status.
        if events:
            await reply.send_events(opening + events, last=answer.complete)
            opening = ""
        if answer.complete:
            return
