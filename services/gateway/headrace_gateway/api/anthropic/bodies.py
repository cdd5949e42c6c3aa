"""The JSON bodies of /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from headrace_gateway.api.anthropic.blocks import Block, as_blocks
from headrace_gateway.api.anthropic.unsupported_fields import (
    BODY,
    BODY_NO_EFFECT,
    TOOL,
    TOOL_NO_EFFECT,
)
from headrace_gateway.api.bodies.strict_body import (
    ENTRIES,
    UNSUPPORTED,
    RequestBody,
    StrictBody,
    Unsigned,
    field_error,
)
from headrace_gateway.base.quoting import quoted

_BLOCKS_OF = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
"""By role, the types of blocks that its messages may have."""


class Message(StrictBody):
    PATH = "messages[]."

    role: str
    content: Annotated[list[Block], ENTRIES, BeforeValidator(as_blocks)]

    @model_validator(mode="after")
    def _is_a_turn(self) -> Self:
        if self.role not in _BLOCKS_OF:
            raise field_error("role", f"{quoted(self.role)} is none of {', '.join(_BLOCKS_OF)}")
        allowed = _BLOCKS_OF[self.role]
        for i, block in enumerate(self.content):
            if block.type not in allowed:
                raise field_error(
                    f"content[{i}].type",
                    f"is {block.type}; a message of role {self.role} has {', '.join(allowed)}",
                )
        return self


class ToolBody(StrictBody):
    """A tool that the client runs."""

    UNSUPPORTED_FIELDS = TOOL
    IGNORED_FIELDS = TOOL_NO_EFFECT
    PATH = "tools[]."

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    input_examples: Annotated[list[dict[str, Any]], ENTRIES] | None = None
    """They are the `examples` of its schema, which templates print."""
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_run_by_the_client(cls, data: object) -> object:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind != "custom":
            fact = (
                f"is {quoted(kind)}; tools of that type are not served. Offer one of your own, with"
                " an input_schema"
            )
            raise field_error("type", fact, kind=UNSUPPORTED)
        return data


class ToolChoiceBody(StrictBody):
    PATH = "tool_choice."

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_a_tool(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise field_error("name", "is there where the type is tool, and only there")
        return self


class ThinkingBody(StrictBody):
    PATH = "thinking."

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[Unsigned, Field(ge=1)] | None = None
    display: Literal["summarized", "omitted"] | None = None

    @model_validator(mode="after")
    def _has_its_budget(self) -> Self:
        if (self.type == "enabled") != (self.budget_tokens is not None):
            raise field_error("budget_tokens", "is there where the type is enabled, and only there")
        return self


class OutputConfigBody(StrictBody):
    PATH = "output_config."

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None
    """As OpenAI's response_format, with the schema beside the type."""


class CountTokensBody(RequestBody):
    """What of a message becomes its prompt."""

    UNSUPPORTED_FIELDS = BODY
    IGNORED_FIELDS = BODY_NO_EFFECT

    messages: Annotated[list[Message], ENTRIES]
    system: Annotated[Annotated[list[Block], ENTRIES] | None, BeforeValidator(as_blocks)] = None
    tools: Annotated[list[ToolBody], ENTRIES] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfigBody | None = None
    output_format: dict[str, Any] | None = None
    """The older place of output_config.format."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.messages:
            raise field_error("messages", "is empty; there should be one message at least")
        for i, block in enumerate(self.system or ()):
            if block.type != "text":
                raise field_error(f"system[{i}].type", f"is {block.type}; it may be text")
        if self.tool_choice is not None and self.tool_choice.type != "none" and not self.tools:
            raise field_error("tool_choice", "is allowed only when tools are offered")
        return self


class MessagesBody(CountTokensBody):
    max_tokens: Unsigned
    """What the model's context has not is not generated, whatever this says."""
    stream: bool | None = None
    stop_sequences: Annotated[list[str], ENTRIES] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Unsigned | None = None
    top_p: float | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
