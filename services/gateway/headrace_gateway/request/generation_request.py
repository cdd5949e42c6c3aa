"""A request as an API has parsed it: of the right types, not yet checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.auth.caller import Caller
from headrace.request_keys import request_key
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.base.calls import BatchRow
from headrace_gateway.request.tools import Tools

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A request id, or a role: templates print roles between special tokens."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""The roles of messages, as OpenAI has them."""

Message = Mapping[str, Any]
"""One turn: "role", "content", and what else the caller set; never an empty optional. The content
is a text, or parts of type "text" as OpenAI has them."""


@dataclass(frozen=True, slots=True)
class Text:
    """Tokenised as it stands, with what the model puts before every text."""

    text: str
    field: str = "prompt"

    @property
    def characters(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Rendered by the chat template, which writes every special token itself."""

    messages: Sequence[Message]
    field: str = "messages"
    tools: Sequence[Mapping[str, Any]] = ()
    """As OpenAI has them, which is as templates take them."""
    documents: Sequence[Mapping[str, Any]] = ()
    """For templates that print them; others refuse them."""
    opens_answer: bool = True
    """The prompt ends with what opens an answer of the model's."""
    continues: bool = False
    """It ends within its last message, which the model continues; then nothing is opened."""
    template_kwargs: Mapping[str, Any] | None = None
    """Further variables of the template."""

    @property
    def characters(self) -> int:
        """Of everything in it: ten thousand empty messages are no small conversation."""
        variables = self.template_kwargs or {}
        parts = (*self.messages, *self.tools, *self.documents, variables)
        return sum(_characters(each) for each in parts)


def _characters(value: object) -> int:
    """Count the characters of a text, or of all texts in an object."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, Mapping):
            total += sum(map(len, each.keys()))
            left += each.values()
        elif isinstance(each, list):
            left += each
    return total


def last_answer(conversation: Conversation) -> str:
    """Return the text of the last message if it is an assistant's, or else an empty one."""
    last = conversation.messages[-1]
    if last["role"] != "assistant":
        return ""
    content = last["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Taken as they are."""

    token_ids: Sequence[int]
    field: str = "prompt_token_ids"


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that become one input: a query, and a document that may answer it."""

    first: str
    second: str
    field: str

    @property
    def characters(self) -> int:
        return len(self.first) + len(self.second)


AnyInput = Text | TextPair | TokenIds
"""The input of one vector."""


WHOLE_CONTEXT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On whose behalf a request is made, how urgent it is, and how long it may take."""

    caller: Caller
    priority: Priority.ValueType = Priority.PRIORITY_UNSPECIFIED
    timeout_s: float | None = None
    """Unset, as the next: the gateway's limit."""
    patience_s: float | None = None
    time_remaining_s: float | None = None
    """Of the call's own deadline, which no limit binds; unset without one."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Our names of fields to the caller's, where they differ."""
    cached: bool = False
    """Whether the caller wants it answered from a cache, where that is possible."""
    row: BatchRow | None = None
    """Set of a row of a batch, which may run until the batch ends, whatever the gateway's limit."""

    def name_of(self, field_name: str) -> str:
        return self.names.get(field_name, field_name)


REASONING_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates know whether the model is to reason."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class ReasoningOptions:
    """How long a model is to reason, as far as its chat template knows."""

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template; they go before the model's defaults."""
    effort: str = ""
    """One of EFFORTS; empty: the template's own."""
    budget: int | None = None
    """Most tokens of reasoning; unset: no bound."""

    @property
    def any_requested(self) -> bool:
        return bool(self.template_kwargs or self.effort) or self.budget is not None


@dataclass(frozen=True, slots=True)
class GenerationRequest(Terms):
    request_id: str
    model: str
    prompt: Text | Conversation | TokenIds
    parameters: SamplingParameters
    seed: int | None = None
    """Unset: drawn."""
    n: int = 1
    tools: Tools = field(default_factory=Tools)
    reasoning: ReasoningOptions = field(default_factory=ReasoningOptions)
    stream: bool = False
    """Its client reads it as it is generated, and may resume it."""
    idempotent: bool = False
    """It has an Idempotency-Key: its client may send it again, streamed or whole."""
    background: bool = False
    """It runs without any reader; no call's deadline binds it."""
    stored_response: bool = False
    """Its result is stored with the conversations, for /v1/responses."""
    cache_salt: str | None = None
    """What is cached of its prompt is shared with requests of equal salt alone."""
    truncate_tokens: int | None = None
    """Only the last so many tokens of its prompt are read, or WHOLE_CONTEXT. Unset: all."""
    cuts_max_tokens: bool = False
    """max_tokens beyond the model's context are those that are left of it, and not refused."""
    adds_special_tokens: bool | None = None
    """Whether the tokenizer puts its own around the prompt. Unset: around texts, and not around
    conversations, whose template writes them."""
    is_part: bool = False
    """Of a call of several prompts, another one counts as the request."""

    @property
    def key(self) -> str:
        return request_key(self.caller.tenant, self.request_id)


@dataclass(frozen=True, slots=True)
class VectorRequest(Terms):
    """Inputs that are each to become a vector, or a score."""

    request_id: str
    model: str
    inputs: Sequence[AnyInput]
    truncate_tokens: int | None = None
    """Longest input, special tokens included: it is cut to that, or to WHOLE_CONTEXT. Unset: too
    long is refused."""
