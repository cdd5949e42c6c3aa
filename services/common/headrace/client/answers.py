"""What generations answer with: whole answers, and the pieces of a stream. Pure.

A stream of one choice, and the answer that it comes to:

    Piece(reasoning="Six times seven. ")
    Piece(text="It is ")
    Piece(text="42.", finish_reason="stop")
    Answer(choices=(Choice(text="It is 42.", reasoning="Six times seven. ", ...),), usage=...)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from headrace.v1 import common_pb2
from headrace.v1.common_pb2 import FinishReason, Logprobs
from headrace.v1.generation_pb2 import Delta, StreamGenerateResponse


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    """Of all choices."""
    cached_prompt_tokens: int | None = None
    """Those of the prompt that were not computed; None: not reported, as the next."""
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens

    @classmethod
    def of(cls, usage: common_pb2.Usage) -> Usage:
        optional = {
            name: getattr(usage, name)
            for name in ("cached_prompt_tokens", "reasoning_tokens")
            if usage.HasField(name)
        }
        return cls(usage.prompt_tokens, usage.output_tokens, **optional)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model calls."""

    call_id: str
    name: str
    arguments: str
    """JSON text of an object; incomplete if `max_tokens` cut it."""

    def parsed(self) -> dict[str, Any]:
        """Return the arguments. ValueError: they are no JSON object."""
        value = json.loads(self.arguments or "{}")
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of {self.name} are no JSON object")
        return value

    def result(self, content: str) -> dict[str, Any]:
        """Return the message that answers this call."""
        return {"role": "tool", "tool_call_id": self.call_id, "content": content}


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of the call number `index` of a choice; the first has its id and name."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice of a stream has more than before."""

    index: int
    """Of the choice, from 0."""
    text: str
    """May be empty: a token may end within a character."""
    reasoning: str
    tool_calls: tuple[ToolCallDelta, ...]
    token_ids: tuple[int, ...]
    finish_reason: str | None
    """"stop", "length", "cancelled" or "error"; in the last piece of the choice."""
    logprobs: Logprobs | None
    """Of `token_ids`. None where they were not requested, as the next."""
    prompt_logprobs: Logprobs | None

    @classmethod
    def of(cls, delta: Delta) -> Piece:
        return cls(
            index=delta.choice,
            text=delta.text,
            reasoning=delta.reasoning,
            tool_calls=tuple(
                ToolCallDelta(each.index, each.call_id, each.name, each.arguments)
                for each in delta.tool_calls
            ),
            token_ids=tuple(delta.token_ids),
            finish_reason=_finish_reason(delta.finish_reason),
            logprobs=delta.logprobs if delta.HasField("logprobs") else None,
            prompt_logprobs=delta.prompt_logprobs if delta.HasField("prompt_logprobs") else None,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One output."""

    index: int
    text: str = ""
    reasoning: str = ""
    """What the model wrote before its answer, where it reasons; not in `text`."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    """As of `Piece`; None: it has not ended."""
    token_ids: tuple[int, ...] = ()
    logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None

    @classmethod
    def of(cls, choice: common_pb2.Choice) -> Choice:
        return cls(
            index=choice.index,
            text=choice.text,
            reasoning=choice.reasoning,
            tool_calls=tuple(
                ToolCall(each.call_id, each.name, each.arguments) for each in choice.tool_calls
            ),
            finish_reason=_finish_reason(choice.finish_reason),
            token_ids=tuple(choice.token_ids),
            logprobs=choice.logprobs if choice.HasField("logprobs") else None,
            prompt_logprobs=choice.prompt_logprobs if choice.HasField("prompt_logprobs") else None,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of one or more choices; `text` and the like are those of the first."""

    request_id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    seed: int | None = None
    """With which the same request gets the same output."""

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str | None:
        return self.choices[0].finish_reason

    @property
    def message(self) -> dict[str, Any]:
        """The message to add to the conversation, with its reasoning and calls."""
        first = self.choices[0]
        message: dict[str, Any] = {"role": "assistant", "content": first.text}
        if first.reasoning:
            message["reasoning"] = first.reasoning
        if first.tool_calls:
            message["tool_calls"] = [
                {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
                for call in first.tool_calls
            ]
        return message


@dataclass
class AnswerBuilder:
    """Adds up the events of a stream."""

    request_id: str = ""
    model: str = ""
    seed: int | None = None
    usage: Usage = field(default_factory=Usage)
    _pieces: dict[int, list[Piece]] = field(default_factory=lambda: {0: []})

    def take(self, event: StreamGenerateResponse) -> Piece | None:
        """Take account of an event; return its piece, if it has one."""
        if event.HasField("started"):
            started = event.started
            self.request_id, self.model, self.seed = started.request_id, started.model, started.seed
            self.usage = Usage(prompt_tokens=started.prompt_tokens)
        elif event.HasField("finish"):
            self.usage = Usage.of(event.finish.usage)
        elif event.HasField("delta"):
            piece = Piece.of(event.delta)
            self._pieces.setdefault(piece.index, []).append(piece)
            return piece
        return None

    @property
    def answer(self) -> Answer:
        """What has come until now."""
        choices = tuple(_choice(index, self._pieces[index]) for index in sorted(self._pieces))
        return Answer(self.request_id, self.model, choices, self.usage, self.seed)


def _choice(index: int, pieces: list[Piece]) -> Choice:
    calls: dict[int, ToolCall] = {}
    for part in (part for piece in pieces for part in piece.tool_calls):
        before = calls.get(part.index, ToolCall(part.call_id, part.name, ""))
        joined = before.arguments + part.arguments
        calls[part.index] = ToolCall(before.call_id, before.name, joined)
    return Choice(
        index=index,
        text="".join(piece.text for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        tool_calls=tuple(calls[number] for number in sorted(calls)),
        finish_reason=pieces[-1].finish_reason if pieces else None,
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        logprobs=_joined(piece.logprobs for piece in pieces),
        prompt_logprobs=next((p.prompt_logprobs for p in pieces if p.prompt_logprobs), None),
    )


def _joined(parts: Iterable[Logprobs | None]) -> Logprobs | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    whole = Logprobs()
    for part in found:
        whole.MergeFrom(part)
    return whole


def _finish_reason(reason: FinishReason.ValueType) -> str | None:
    if reason == FinishReason.FINISH_REASON_UNSPECIFIED:
        return None
    return FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()
