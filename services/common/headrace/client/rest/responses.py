"""Responses: stored answers, in the background too, whose events can be read again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from headrace.client.answers import ToolCall, Usage
from headrace.client.calls.links import AsyncLink, BlockingLink
from headrace.client.calls.retries import Retries, may_succeed
from headrace.client.calls.scripts import (
    END,
    SILENCE_S,
    Attempts,
    Close,
    Emit,
    Next,
    Open,
    Read,
    RestCall,
    Script,
    Sleep,
    sent,
    then,
)
from headrace.client.resume import RESUME_PAUSE_S, RESUME_WITHIN_S
from headrace.client.unreachable import ConnectionLost
from headrace.errors import (
    DeadlineExceeded,
    HeadraceError,
    InternalError,
    InvalidRequest,
    errors_by_reason,
)

_PATH = "/v1/responses"
_LAST = ("response.completed", "response.incomplete", "response.failed")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
Input = str | Sequence[Mapping[str, Any]]
"""Text of a user, or items: messages, outputs of functions, items of earlier responses."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it is now."""

    id: str
    status: str
    """"queued", "in_progress", "completed", "incomplete", "failed" or "cancelled"."""
    model: str
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    usage: Usage | None
    """None: it has not ended."""
    error: Mapping[str, Any] | None
    """`code` and `message` of one that failed."""
    raw: Mapping[str, Any] = field(repr=False)
    """All that the mesh says of it, as the `output` items."""

    @property
    def has_ended(self) -> bool:
        return self.status not in ("queued", "in_progress")

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Response:
        output = raw.get("output") or ()
        return cls(
            id=raw["id"],
            status=raw["status"],
            model=raw["model"],
            text=_text(output, "message", "content"),
            reasoning=_text(output, "reasoning", "content")
            or _text(output, "reasoning", "summary"),
            tool_calls=tuple(
                ToolCall(item["call_id"], item["name"], item["arguments"])
                for item in output
                if item["type"] == "function_call"
            ),
            usage=_usage(raw["usage"]) if raw.get("usage") else None,
            error=raw.get("error"),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class ResponseEvent:
    """An event of a response's stream."""

    type: str
    """As `response.output_text.delta`."""
    sequence_number: int
    text: str
    """What the text has more than before; often empty, as the next."""
    reasoning: str
    response: Response | None
    """In the first events, and in the last."""
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> ResponseEvent:
        kind, delta = raw["type"], raw.get("delta", "")
        thinks = kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
        return cls(
            type=kind,
            sequence_number=raw["sequence_number"],
            text=delta if kind == "response.output_text.delta" else "",
            reasoning=delta if thinks else "",
            response=Response.of(raw["response"]) if "response" in raw else None,
            raw=raw,
        )


def _text(output: Sequence[Mapping[str, Any]], kind: str, where: str) -> str:
    parts = (part for item in output if item["type"] == kind for part in item.get(where) or ())
    return "".join(part.get("text", "") for part in parts)


def _usage(raw: Mapping[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=raw["input_tokens"],
        output_tokens=raw["output_tokens"],
        cached_prompt_tokens=(raw.get("input_tokens_details") or {}).get("cached_tokens"),
        reasoning_tokens=(raw.get("output_tokens_details") or {}).get("reasoning_tokens"),
    )


class EventReader:
    """Reads the events of one response to its end, each once, over all its connections.

    What was read is read again after a break, and compared: an event that differs is an error.

    Args:
        call: which gives the events from `after` on, each time that it is sent.
    """

    def __init__(self, call: RestCall, retries: Retries, after: int = -1) -> None:
        self._call, self._last = call, after
        self._read: dict[int, Any] = {}
        self._attempts, self._last_event_s = Attempts(retries), 0.0

    def read(self) -> Script[None]:
        while True:
            stream, is_empty = None, True
            try:
                stream = yield Open(self._call)
                while (raw := (yield Next(stream))) is not END:
                    is_empty = False
                    if self._is_new(raw):
                        yield Emit(ResponseEvent.of(raw))
                    if raw["type"] in _LAST and raw["sequence_number"] >= self._last:
                        return
                if is_empty and not self._read and self._call.method == "GET":
                    return  # `after` is the last event
                raise ConnectionLost("the stream ended before its last event")
            except HeadraceError as error:
                pause_s = self._pause_s(error)
            if stream is not None:
                yield Close(stream)
            yield Sleep(pause_s)

    def _is_new(self, raw: Mapping[str, Any]) -> bool:
        """Take account of an event.

        Raises:
            HeadraceError: it says that the stream ends here, or differs from the one of its number.
        """
        if raw["type"] == "error":
            kind = errors_by_reason().get(str(raw.get("code")).upper(), InternalError)
            raise kind(str(raw.get("message")), field=raw.get("param"))
        number, what = raw["sequence_number"], (raw["type"], raw.get("delta"))
        if number > self._last:
            self._read[number] = what
            self._last, self._last_event_s = number, time.monotonic()
            return True
        if self._read.get(number, what) != what:
            raise InternalError(f"the response differs from event {number} on; send it again")
        return False

    def _pause_s(self, error: HeadraceError) -> float:
        """Return the time until it is read again; raise the error if it is not."""
        if not self._read:
            return self._attempts.pause_s(error, repeatable=True)
        if time.monotonic() - self._last_event_s > RESUME_WITHIN_S or not may_succeed(
            error, repeatable=True
        ):
            raise error
        return RESUME_PAUSE_S if error.retry_after_s is None else min(1.0, error.retry_after_s)


class ResponseScripts:
    """What the calls of responses do."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def create(self, model: str, sent_input: Input, options: Mapping[str, Any]) -> Script[Response]:
        if options.get("stream"):
            raise InvalidRequest(
                "create returns a response; stream is its own method, use it", field="stream"
            )
        body = {"model": model, "input": sent_input, **options}
        return then(sent(_create(body), self._retries), Response.of)

    def stream(self, model: str, sent_input: Input, options: Mapping[str, Any]) -> Script[None]:
        body = {"model": model, "input": sent_input, **options, "stream": True}
        return EventReader(_create(body, Read.EVENTS), self._retries).read()

    def events(self, response_id: str, after: int) -> Script[None]:
        params = {"stream": "true", "starting_after": after if after >= 0 else None}
        call = RestCall("GET", _path(response_id), params=params, read=Read.EVENTS)
        return EventReader(call, self._retries, after).read()

    def get(self, response_id: str) -> Script[Response]:
        return then(sent(RestCall("GET", _path(response_id)), self._retries), Response.of)

    def cancel(self, response_id: str) -> Script[Response]:
        call = RestCall("POST", f"{_path(response_id)}/cancel")
        return then(sent(call, self._retries), Response.of)

    def delete(self, response_id: str) -> Script[None]:
        call = RestCall("DELETE", _path(response_id), repeatable=False)
        return then(sent(call, self._retries), lambda _: None)

    def wait(self, response_id: str, timeout_s: float) -> Script[Response]:
        end_s, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while not (found := (yield from self.get(response_id))).has_ended:
            if time.monotonic() + pause_s > end_s:
                raise DeadlineExceeded(
                    f"response {response_id} has not ended within {timeout_s:g} s; it runs on"
                )
            yield Sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return found


def _create(body: Mapping[str, Any], read: Read = Read.JSON) -> RestCall:
    # With the key, a call that is sent again gets the answer of the first, and its events.
    key = {"idempotency-key": uuid4().hex}
    # A model's answer may take any time; the stream of one is kept alive with comments.
    silence_s = SILENCE_S if read is Read.EVENTS else None
    return RestCall("POST", _PATH, json=body, headers=key, read=read, silence_s=silence_s)


def _path(response_id: str) -> str:
    return f"{_PATH}/{quote(response_id, safe='')}"


class Responses:
    """`client.responses`; options are the fields of OpenAI's `POST /v1/responses`."""

    def __init__(self, link: BlockingLink, scripts: ResponseScripts) -> None:
        self._link, self._scripts = link, scripts

    def create(self, input: Input, *, model: str, **options: Any) -> Response:
        """Return the response; with `background=True` at once, and it runs on by itself."""
        return self._link.run(self._scripts.create(model, input, options))

    def stream(self, input: Input, *, model: str, **options: Any) -> Iterator[ResponseEvent]:
        """Yield the events of a new response, each once, over killed gateways too."""
        return self._link.iterate(self._scripts.stream(model, input, options))

    def events(self, response_id: str, *, starting_after: int = -1) -> Iterator[ResponseEvent]:
        """Yield the events of a stored response behind the one of this number."""
        return self._link.iterate(self._scripts.events(response_id, starting_after))

    def get(self, response_id: str) -> Response:
        return self._link.run(self._scripts.get(response_id))

    def wait(self, response_id: str, *, timeout_s: float = float("inf")) -> Response:
        """Return the response once it has ended. DeadlineExceeded: it has not, and runs on."""
        return self._link.run(self._scripts.wait(response_id, timeout_s))

    def cancel(self, response_id: str) -> Response:
        """End a background response."""
        return self._link.run(self._scripts.cancel(response_id))

    def delete(self, response_id: str) -> None:
        self._link.run(self._scripts.delete(response_id))


class AsyncResponses:
    """`Responses` of an `AsyncClient`."""

    def __init__(self, link: AsyncLink, scripts: ResponseScripts) -> None:
        self._link, self._scripts = link, scripts

    async def create(self, input: Input, *, model: str, **options: Any) -> Response:
        return await self._link.run(self._scripts.create(model, input, options))

    def stream(self, input: Input, *, model: str, **options: Any) -> AsyncIterator[ResponseEvent]:
        return self._link.iterate(self._scripts.stream(model, input, options))

    def events(self, response_id: str, *, starting_after: int = -1) -> AsyncIterator[ResponseEvent]:
        return self._link.iterate(self._scripts.events(response_id, starting_after))

    async def get(self, response_id: str) -> Response:
        return await self._link.run(self._scripts.get(response_id))

    async def wait(self, response_id: str, *, timeout_s: float = float("inf")) -> Response:
        return await self._link.run(self._scripts.wait(response_id, timeout_s))

    async def cancel(self, response_id: str) -> Response:
        return await self._link.run(self._scripts.cancel(response_id))

    async def delete(self, response_id: str) -> None:
        await self._link.run(self._scripts.delete(response_id))
