"""Blocks: what the content of a message is made of."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from headrace_gateway.api.anthropic.unsupported_fields import BLOCK_NO_EFFECT
from headrace_gateway.api.bodies.strict_body import ENTRIES, UNSUPPORTED, StrictBody, field_error
from headrace_gateway.base.quoting import quoted

_NEEDED = {
    "text": ("text",),
    "thinking": ("thinking",),
    "redacted_thinking": (),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
"""By type of block, the fields that it must have."""


def as_blocks(content: object) -> object:
    """Return a text as the only block, and blocks as they are."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Block(StrictBody):
    """A block of any type that is served; a field is set where its type has it."""

    IGNORED_FIELDS = BLOCK_NO_EFFECT
    PATH = "messages[].content[]."

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] | None = None
    tool_use_id: str = ""
    content: Annotated[Annotated[list[Block], ENTRIES] | None, BeforeValidator(as_blocks)] = None
    is_error: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_of_a_served_type(cls, data: object) -> object:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind not in _NEEDED:
            fact = f"is {quoted(kind)}; only text, tools and thinking are read"
            raise field_error("type", fact, kind=UNSUPPORTED)
        return data

    @model_validator(mode="after")
    def _has_what_its_type_has(self) -> Self:
        for name in _NEEDED[self.type]:
            if name not in self.model_fields_set or getattr(self, name) is None:
                raise field_error(name, "is missing")
        for i, block in enumerate(self.content or ()):
            if block.type != "text":
                raise field_error(f"content[{i}].type", f"is {block.type}; results are text")
        return self
