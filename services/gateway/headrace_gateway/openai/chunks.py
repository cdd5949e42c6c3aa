"""Pure room: what has been said, as OpenAI's JSON and server-sent events.

A chunk is a prefix and a suffix that are made once, with the text between them:
a tenth of the time that `json.dumps` of the whole takes. The text is escaped to
ASCII, because some clients split lines at U+2028 and its like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, ToolCall, Usage
from headrace_gateway.openai.telling import Piece, Telling
from headrace_gateway.tool_calls import CallPiece
from headrace_gateway.transcript import UNFINISHED, Said

_FINISH_REASONS = {
    FinishReason.FINISH_REASON_STOP: "stop",
    FinishReason.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True, slots=True)
class Form:
    """What tells chat from plain completions."""

    prefix: str
    """Of the id."""
    whole: str
    chunk: str
    """`object` of the whole answer and of a chunk."""
    opens: bool
    """The first chunk of a choice has its role and nothing else."""


CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk", opens=True)
COMPLETION = Form("cmpl-", "text_completion", "text_completion", opens=False)


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer repeats."""

    request_id: str
    model: str
    created: int
    """Seconds of Unix time."""
    fingerprint: str
    """Equal for equal weights."""

    def fields(self, form: Form, kind: str) -> dict[str, Any]:
        return {
            "id": form.prefix + self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Chunks:
    """Server-sent events of one answer."""

    def __init__(
        self,
        form: Form,
        head: Head,
        *,
        choices: int,
        include_usage: bool,
        telling: Telling | None = None,
    ) -> None:
        """`telling`: where more than text was asked for."""
        self._head = json.dumps(head.fields(form, form.chunk), separators=(",", ":"))[:-1]
        self._start = f'data: {self._head},"choices":[{{"index":'
        self._end = f"}}]{_NO_USAGE if include_usage else ''}}}\n\n"
        self._open, self._close = ('"delta":{"content":', "}") if form.opens else ('"text":', "")
        self._nothing = '"delta":{}' if form.opens else '"text":""'
        self._called: set[int] = set()
        """Choices that have called a tool."""
        self._choices = choices if form.opens else 0
        self._include_usage = include_usage
        self._telling = telling

    def opening(self) -> str:
        """The first event of each choice; empty where the form has none."""
        role = '"delta":{"role":"assistant","content":""}'
        return "".join(self._event(choice, role, "null") for choice in range(self._choices))

    def said(self, news: Iterable[Said]) -> str:
        """Events for the news; empty where there is neither text nor an end."""
        events = []
        for said in news:
            if self._telling is not None:
                events += [self._piece(said.choice, piece) for piece in self._telling.pieces(said)]
            elif said.text:
                content = f"{self._open}{json.dumps(said.text)}{self._close}"
                events.append(self._event(said.choice, content, "null"))
            for piece in said.calls:
                self._called.add(said.choice)
                events.append(self._event(said.choice, _call(piece), "null"))
            if said.finish_reason != UNFINISHED:
                reason = f'"{_finish_reason(said.finish_reason, said.choice in self._called)}"'
                events.append(self._event(said.choice, self._nothing, reason))
        return "".join(events)

    def ending(self, usage: Usage) -> str:
        """After the last of a good answer: usage, if it was asked for, and the mark of the end."""
        counted = json.dumps(_usage(usage), separators=(",", ":"))
        event = f'data: {self._head},"choices":[],"usage":{counted}}}\n\n'
        return f"{event if self._include_usage else ''}data: [DONE]\n\n"

    def _piece(self, choice: int, piece: Piece) -> str:
        content = f"{self._open}{json.dumps(piece.text)}{self._close}{_ids(piece.token_ids)}"
        return self._event(choice, content, "null", piece.logprobs)

    def _event(self, choice: int, content: str, reason: str, logprobs: str = "null") -> str:
        return (
            f'{self._start}{choice},{content},"logprobs":{logprobs},'
            f'"finish_reason":{reason}{self._end}'
        )


_NO_USAGE = ',"usage":null'


def whole(form: Form, head: Head, outcome: RequestOutcome, telling: Telling | None = None) -> bytes:
    """An answer in one piece."""
    body = json.dumps(head.fields(form, form.whole) | {"usage": _usage(outcome.usage)})
    choices = ",".join(_choice(form, choice, telling) for choice in outcome.choices)
    of_prompt = _of_prompt(telling, outcome.choices[0]) if form.opens else ""
    return f'{body[:-1]},"choices":[{choices}]{of_prompt}}}'.encode()


def _choice(form: Form, choice: Choice, telling: Telling | None) -> str:
    piece = Piece(choice.text) if telling is None else telling.whole(choice)
    said: dict[str, Any] = {"text": piece.text}
    if form.opens:
        said = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
    if choice.tool_calls:
        said["message"]["tool_calls"] = [_whole_call(call) for call in choice.tool_calls]
        said["message"]["content"] = piece.text or None
    reason = _finish_reason(choice.finish_reason, bool(choice.tool_calls))
    body = json.dumps({"index": choice.index, **said, "finish_reason": reason})
    of_prompt = "" if form.opens else _of_prompt(telling, choice)
    return f'{body[:-1]},"logprobs":{piece.logprobs}{_ids(piece.token_ids)}{of_prompt}}}'


def _ids(token_ids: Sequence[int]) -> str:
    """A further member, as the next; nothing for none."""
    return f',"token_ids":{json.dumps(list(token_ids), separators=(",", ":"))}' if token_ids else ""


def _of_prompt(telling: Telling | None, choice: Choice) -> str:
    """A further member, where it was asked for."""
    told = None if telling is None else telling.of_prompt(choice)
    return "" if told is None else f',"prompt_logprobs":{told}'


def _call(piece: CallPiece) -> str:
    call: dict[str, Any] = {"index": piece.index}
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name is not None:
        call |= {"id": piece.call_id, "type": "function"}
        function = {"name": piece.name, **function}
    return f'"delta":{{"tool_calls":[{json.dumps(call | {"function": function})}]}}'


def _whole_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _finish_reason(reason: FinishReason.ValueType, called: bool) -> str:
    if called and reason == FinishReason.FINISH_REASON_STOP:
        return "tool_calls"
    return _FINISH_REASONS[reason]


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }
