"""Sends one response to its caller, as events or as one body."""

from __future__ import annotations

import json
from collections.abc import Callable

from headrace.errors import (
    GatewayDraining,
    GatewayUnreachable,
    HeadraceError,
    InsufficientQuota,
)
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.rpc.http_errors import openai_error
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.deliver import comment
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.http.errors import OPENAI_ERRORS, HttpResponse
from headrace_gateway.api.responses.finding import FoundResponse
from headrace_gateway.api.responses.wire.events import ResponseEvents, written
from headrace_gateway.api.responses.wire.resource import Description, Ending, Json
from headrace_gateway.base.keepalive import kept_alive
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.quota.headers import LimitHeaders, rate_limit_headers


class ResponseErrorFormat:
    """OpenAI's errors; within a stream an event `error`, as its headers have gone."""

    def __init__(self, last_sent: Callable[[], int] = lambda: -1) -> None:
        """`last_sent`: returns the number of the last event that was sent; -1: none was."""
        self._last_sent = last_sent

    @property
    def limit_headers(self) -> LimitHeaders:
        return rate_limit_headers

    def error_response(self, error: HeadraceError, request_id: str) -> HttpResponse:
        return OPENAI_ERRORS.error_response(error, request_id)

    def error_event(self, error: HeadraceError, usage: Usage | None, request_id: str) -> str:
        about = openai_error(error)["error"]
        # Why not the next number: who reads on after the last one that it has, misses no event.
        event: Json = {"type": "error", "sequence_number": self._last_sent()}
        return written(event | {name: about[name] for name in ("code", "message", "param")})


RESPONSE_ERRORS = ResponseErrorFormat()
GOES_ON = (GatewayUnreachable, GatewayDraining)
"""What ends one reader's stream of a response that others can read on."""


class EventStream:
    """The events of a response on their way to one caller, who may have the first of them."""

    def __init__(self, http: HttpCall, *, last_seen: int = -1) -> None:
        """`last_seen`: the number of the last event that the caller has; -1: none."""
        self._reply, self._last_seen = http.reply, last_seen
        http.reply.error_format = ResponseErrorFormat(lambda: self._last_seen)
        self._settings, self._clock = http.services.settings, http.services.conversations
        self._has_begun = last_seen >= 0
        """The caller has events: what fails now is one, too."""

    async def send(self, answer: Answer, description: Description) -> None:
        """Send the events of an answer that the caller does not have, to its end.

        Raises:
            HeadraceError: it failed before an event was sent; or it goes on, and is to be read
                elsewhere: then it is one of GOES_ON.
        """
        spelling = answer.tokenizer.spelling if description.logprobs else None
        events = ResponseEvents(description, spelling)
        try:
            async with kept_alive(
                self._reply, lambda: comment(answer.queued, ids=False), self._settings
            ):
                await self._send(answer, events, eager=description.background)
        except GenerationFailed as failed:
            await answer.settle()
            error = failed.error
            if not self._has_begun or isinstance(error, GOES_ON):
                raise error from failed
            ending = Ending(answer.usage(), error=error, at_s=self._clock.unix_s)
            await self._write(list(events.ending(ending)), last=True)

    async def send_ended(self, found: FoundResponse, result: ResultRecord) -> None:
        """Send the events of a response with this result that the caller does not have.

        Raises:
            HeadraceError: as `send`.
        """
        if (answer := found.rebuilt(result)) is not None:
            async with answer:
                await self.send(answer, found.description)
            return
        *events, end = found.text_events(result)
        # Why: they are fewer than its stream had, and a caller that has those waits for the end.
        number = max(end["sequence_number"], self._last_seen + 1)
        await self._write([*events, end | {"sequence_number": number}], last=True)

    async def _send(self, answer: Answer, events: ResponseEvents, *, eager: bool) -> None:
        made = list(events.opening())
        if eager:
            await self._write(made, last=False)
            made = []
        async for deltas in answer.one_token_each():
            made += [event for delta in deltas for event in events.take(delta)]
            if answer.complete:
                await answer.settle()
                ending = Ending(answer.usage(), events.finish_reason, at_s=self._clock.unix_s)
                made += events.ending(ending)
            # Why not the opening alone: a failure that comes first keeps its HTTP status.
            if deltas:
                await self._write(made, last=answer.complete)
                made = []
            if answer.complete:
                return

    async def _write(self, events: list[Json], *, last: bool) -> None:
        unseen = [event for event in events if event["sequence_number"] > self._last_seen]
        if unseen or last:
            await self._reply.send_events("".join(map(written, unseen)), last=last)
        if unseen:
            self._last_seen, self._has_begun = unseen[-1]["sequence_number"], True


async def deliver_response(
    answer: Answer, http: HttpCall, description: Description, *, stream: bool
) -> None:
    """Send an answer, and settle it before its end is sent; if cancelled earlier, abandon it.

    Raises:
        HeadraceError: it failed before anything was sent.
    """
    http.reply.request_id = answer.request.request_id
    async with answer:
        if stream:
            await EventStream(http).send(answer, description)
        else:
            await _send_whole(answer, http, description)


async def send_ended(
    http: HttpCall, found: FoundResponse, result: ResultRecord, *, stream: bool
) -> None:
    """Send a response that has this result.

    Raises:
        HeadraceError: it failed before anything was sent.
    """
    http.reply.request_id = found.description.request_id
    if stream:
        await EventStream(http).send_ended(found, result)
    else:
        await http.reply.send_json(await found.ended(result))


async def _send_whole(answer: Answer, http: HttpCall, description: Description) -> None:
    spelling = answer.tokenizer.spelling if description.logprobs else None
    events, error = ResponseEvents(description, spelling), None
    try:
        async for deltas in answer.one_token_each():
            for delta in deltas:
                for _ in events.take(delta):
                    pass
            if answer.complete:
                break
    except GenerationFailed as failed:
        error = failed.error
    await answer.settle()
    now_s = http.services.conversations.unix_s
    ending = Ending(answer.usage(), events.finish_reason, error, now_s)
    http.reply.usage = ending.usage
    body = json.dumps(events.response(ending)).encode()
    if error is None:
        await http.reply.send(body)
    else:
        # Why: what was made is billed, and the same request would be refused again.
        so_far = body if isinstance(error, InsufficientQuota) else b""
        await http.reply.fail(error, answer.usage(), so_far)
