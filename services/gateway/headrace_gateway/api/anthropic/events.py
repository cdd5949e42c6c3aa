"""Pure: deltas and answers as Anthropic's messages and events.

A message is a list of blocks. Of a stream, a block is opened by the first delta that belongs to it,
and closed by the first that does not:

    delta                events
    text "Let me"        message_start, content_block_start 0 (text), content_block_delta
    a call's name        content_block_stop 0, content_block_start 1 (tool_use)
    its arguments        content_block_delta (input_json_delta)
    the end              content_block_stop 1, message_delta (stop_reason, usage), message_stop

White space before a call is no block of its own: it is held until more text comes.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, Usage
from headrace_gateway.api.anthropic.call_input import call_input
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.parsers.pieces import CallPiece
from headrace_gateway.request.generation import Queued

Json = dict[str, Any]

# Why one for all: json.dumps makes an encoder at every call that is not its default.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_PING = 'event: ping\ndata: {"type":"ping"}\n\n'


@dataclass(frozen=True, slots=True)
class MessageFields:
    """What is known of a message before its first token."""

    request_id: str
    model: str
    prompt_tokens: int
    fills_context: bool = False
    """The context ends before `max_tokens` of the request does."""
    hides_thinking: bool = False
    """Blocks of thinking have their signature only."""

    def as_json(self) -> Json:
        return {
            "id": f"msg_{self.request_id}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
        }


class MessageFormatter:
    """Formats one answer as events or, as a `ResponseFormat`, as one message."""

    eager = False

    def __init__(self, fields: MessageFields) -> None:
        self._fields = fields
        self._started = False
        self._block = ""
        """The type of the open block; empty: none is open."""
        self._index = -1
        """Of the last block that was opened."""
        self._held = {"text": "", "thinking": ""}
        """White space before the first text of a block of this type."""
        self._signed = _signing()
        self._called = False
        self._end: ChoiceDelta | None = None

    def opening(self) -> str:
        # What opens a message says how much of the prompt was cached, which the first delta brings.
        return ""

    def events(self, deltas: Iterable[ChoiceDelta]) -> str:
        return "".join(event for delta in deltas for event in self._events(delta))

    def _events(self, delta: ChoiceDelta) -> Iterator[str]:
        if not self._started:
            self._started = True
            yield self._start(delta.cached_prompt or 0)
        if delta.finish_reason != UNFINISHED:
            self._end = delta
        calls = list(delta.calls)
        # Why before the text: these arguments belong to the block that text would close.
        while calls and calls[0].name is None:
            yield self._arguments(calls.pop(0))
        yield from self._thinking(delta.reasoning)
        yield from self._text(delta.text)
        for piece in calls:
            yield from self._call(piece)

    def _start(self, cached: int) -> str:
        usage = _usage(Usage(prompt_tokens=self._fields.prompt_tokens, cached_prompt_tokens=cached))
        message = self._fields.as_json() | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", message=message)

    def _thinking(self, text: str) -> Iterator[str]:
        if self._block != "thinking":
            if not (text := self._with_held("thinking", text)):
                return
            yield from self._open("thinking", thinking="", signature="")
        self._signed.update(text.encode())
        if text and not self._fields.hides_thinking:
            yield self._delta(type="thinking_delta", thinking=text)

    def _text(self, text: str) -> Iterator[str]:
        if self._block != "text":
            if not (text := self._with_held("text", text)):
                return
            yield from self._open("text", text="")
        if text:
            yield self._delta(type="text_delta", text=text)

    def _with_held(self, kind: str, text: str) -> str:
        """Return the text with white space before it; hold it if it is no more than that."""
        self._held[kind] += text
        if not self._held[kind].strip():
            return ""
        text, self._held[kind] = self._held[kind], ""
        return text

    def _call(self, piece: CallPiece) -> Iterator[str]:
        if piece.name is not None:
            self._called, self._held["text"] = True, ""
            use = {"id": _use_id(piece.call_id), "name": piece.name, "input": {}}
            yield from self._open("tool_use", **use)
        if piece.arguments:
            yield self._arguments(piece)

    def _arguments(self, piece: CallPiece) -> str:
        return self._delta(type="input_json_delta", partial_json=piece.arguments)

    def _open(self, kind: str, **content: object) -> Iterator[str]:
        yield from self._close()
        self._block, self._index = kind, self._index + 1
        block = {"type": kind, **content}
        yield _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[str]:
        if self._block == "thinking":
            yield self._delta(type="signature_delta", signature=_signature(self._signed))
            self._signed = _signing()
        if self._block:
            yield _event("content_block_stop", index=self._index)
        self._block = ""

    def _delta(self, **delta: str) -> str:
        return _event("content_block_delta", index=self._index, delta=delta)

    def ending(self, usage: Usage) -> str:
        return "".join(self._ending(usage))

    def _ending(self, usage: Usage) -> Iterator[str]:
        if self._index < 0:
            yield from self._open("text", text="")
            if held := self._held["text"]:
                yield self._delta(type="text_delta", text=held)
        yield from self._close()
        end = self._end
        assert end is not None
        delta = _stop(self._fields, end.finish_reason, end.stop_string, called=self._called)
        yield _event("message_delta", delta=delta, usage=_usage(usage))
        yield _event("message_stop")

    def queued(self, queued: Queued) -> str:
        return ""

    def keep_alive(self, queued: Queued | None) -> str:
        return _PING

    def response_body(self, outcome: RequestOutcome) -> bytes:
        choice = outcome.choices[0]
        stop = _stop(
            self._fields,
            choice.finish_reason,
            choice.stop_string,
            called=bool(choice.tool_calls),
        )
        blocks = _blocks(choice, hides_thinking=self._fields.hides_thinking)
        content = {"content": list(blocks)}
        message = self._fields.as_json() | content | stop | {"usage": _usage(outcome.usage)}
        return json.dumps(message, allow_nan=False).encode()


def _blocks(choice: Choice, *, hides_thinking: bool) -> Iterator[Json]:
    thought = choice.reasoning if choice.reasoning.strip() else ""
    if thought:
        signed = _signing()
        signed.update(thought.encode())
        shown = "" if hides_thinking else thought
        yield {"type": "thinking", "thinking": shown, "signature": _signature(signed)}
    if choice.text.strip() or not (thought or choice.tool_calls):
        yield {"type": "text", "text": choice.text}
    for call in choice.tool_calls:
        use = {"id": _use_id(call.call_id), "name": call.name, "input": call_input(call.arguments)}
        yield {"type": "tool_use", **use}


def _signing() -> blake2b:
    return blake2b(digest_size=24)


def _signature(signed: blake2b) -> str:
    """Return what clients send back with what was thought. It is not checked: what a caller says
    that a model thought is no more than another part of its prompt."""
    return b64encode(signed.digest()).decode()


def _stop(
    fields: MessageFields, finish: FinishReason.ValueType, stop_string: str, *, called: bool
) -> Json:
    reason = "end_turn"
    if stop_string:
        reason = "stop_sequence"
    elif finish == FinishReason.FINISH_REASON_LENGTH:
        reason = "model_context_window_exceeded" if fields.fills_context else "max_tokens"
    elif called:
        reason = "tool_use"
    return {
        # Of an answer that a limit has ended, nothing is known.
        "stop_reason": reason if finish != UNFINISHED else None,
        "stop_sequence": stop_string or None,
    }


def _usage(usage: Usage) -> Json:
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_prompt_tokens,
        "output_tokens": usage.output_tokens,
        **(details if usage.HasField("reasoning_tokens") else {}),
    }


def _use_id(call_id: str) -> str:
    """Return a call's id with Anthropic's prefix."""
    return f"toolu_{call_id.removeprefix('call_')}"


def _event(kind: str, **members: object) -> str:
    # ASCII, because some clients split lines at U+2028 and its like.
    return f"event: {kind}\ndata: {_encode({'type': kind, **members})}\n\n"
