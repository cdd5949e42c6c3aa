"""What a caller asks for, as its door understood it: of the right types, not yet checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.v1.common_pb2 import Priority, SamplingParameters

Message = Mapping[str, str]
"""One turn: "role", "content", and what else the caller set; never an empty optional."""


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

    @property
    def characters(self) -> int:
        """Of everything in it: ten thousand empty messages are no small conversation."""
        return sum(len(text) for message in self.messages for text in message.values())


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Taken as they are."""

    token_ids: Sequence[int]
    field: str = "prompt_token_ids"


@dataclass(frozen=True, slots=True)
class Wanted:
    request_id: str
    model: str
    prompt: Text | Conversation | TokenIds
    parameters: SamplingParameters
    priority: Priority.ValueType
    seed: int | None = None
    """Unset: drawn."""
    n: int = 1
    timeout_s: float | None = None
    """Unset, as the next: the gateway's limit."""
    patience_s: float | None = None
    time_remaining_s: float | None = None
    """Of the call's own deadline, which no limit binds; unset without one."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Our names of fields to the caller's, where they differ."""

    def name_of(self, field_name: str) -> str:
        return self.names.get(field_name, field_name)
