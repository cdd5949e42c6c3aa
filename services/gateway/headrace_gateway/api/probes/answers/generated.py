"""Chat and completions: whole answers, and the chunks of streams."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Logprobs = dict[str, Any]


class TokensOfPrompt(BaseModel):
    cached_tokens: int


class TokensOfCompletion(BaseModel):
    reasoning_tokens: int


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokensOfPrompt | None = None
    completion_tokens_details: TokensOfCompletion | None = None


class CalledFunction(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class PieceOfFunction(BaseModel):
    name: str | None = None
    arguments: str | None = None


class PieceOfCall(BaseModel):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: PieceOfFunction


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChatDelta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[PieceOfCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    index: int
    logprobs: Logprobs | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[Any] | None = None


class ChatChoice(_Choice):
    message: ChatMessage
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatChunkChoice(_Choice):
    delta: ChatDelta
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class TextChoice(_Choice):
    text: str
    finish_reason: Literal["stop", "length"]


class TextChunkChoice(_Choice):
    text: str
    finish_reason: Literal["stop", "length"] | None


class _Generated(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[Any] | None = None


class ChatCompletion(_Generated):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatCompletionChunk(_Generated):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None


class TextCompletion(_Generated):
    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: CompletionUsage


class TextCompletionChunk(_Generated):
    object: Literal["text_completion"]
    choices: list[TextChunkChoice]
    usage: CompletionUsage | None = None
