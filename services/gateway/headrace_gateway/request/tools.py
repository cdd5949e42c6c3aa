"""Pure: the tools of a request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.request.schema_shape import schema_fault

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    """JSON Schema of an object; None for no arguments."""
    strict: bool = False

    @property
    def schema(self) -> Mapping[str, Any]:
        if self.parameters:
            return self.parameters
        return {"type": "object", "properties": {}, "additionalProperties": False}

    def for_template(self) -> dict[str, Any]:
        """As chat templates take it, which is as OpenAI has it."""
        function: dict[str, Any] = {"name": self.name, "parameters": dict(self.schema)}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tools:
    offered: tuple[Tool, ...] = ()
    choice: Choice = "auto"
    only: str = ""
    """With `required`: the one that is to be called; empty for any."""
    parallel: bool = True

    @property
    def usable(self) -> bool:
        """Whether the prompt names them and the output is searched for calls."""
        return bool(self.offered) and self.choice != "none"


def check_tools(tools: Tools, card: ModelCard, field: str, choice_field: str) -> None:
    """Refuse what cannot be offered to this model.

    Raises:
        Unsupported: the model does not support tool calling, or not a required tool call.
        InvalidRequest: too many, a bad name, the same name twice, parameters that are no object or
            no schema, or a choice of none of them.
    """
    if len(tools.offered) > MAX_TOOLS:
        raise InvalidRequest(
            f"{field} has {len(tools.offered)} entries; it may have {MAX_TOOLS}", field=field
        )
    seen: set[str] = set()
    for i, tool in enumerate(tools.offered):
        if not _NAME.fullmatch(tool.name) or tool.name in seen:
            raise InvalidRequest(
                f"{field}[{i}] needs a name of its own, 1 to 64 of A-Z a-z 0-9 _ . -",
                field=f"{field}[{i}]",
            )
        if not _takes_objects(tool.parameters or {}):
            raise InvalidRequest(
                f"{field}[{i}]: its parameters should be a schema of type object, which the"
                " arguments of every call are",
                field=f"{field}[{i}]",
            )
        if fault := schema_fault(tool.parameters or {}):
            raise InvalidRequest(
                f"{field}[{i}]: its parameters are no schema: {fault}", field=f"{field}[{i}]"
            )
        seen.add(tool.name)
    if tools.choice == "required" and (tools.only or not seen) and tools.only not in seen:
        raise InvalidRequest(f"{choice_field} is none of {field}", field=choice_field)
    if tools.usable and not card.tool_parser:
        raise Unsupported(f"model {card.model} does not support tool calling", field=field)
    if tools.choice == "required" and not card.capabilities.grammar:
        raise Unsupported(
            f"model {card.model} does not support a required tool call",
            field=choice_field,
        )


def as_object(arguments: str | Mapping[str, Any] | None) -> Any:
    """Return a call's arguments: an empty text is no arguments, and broken JSON is the text itself.

    Why: most templates write them with `tojson`, which would quote a text again; and what a model
    has once written must not end its conversation.
    """
    if isinstance(arguments, Mapping):
        return dict(arguments)
    if arguments is None or not arguments.strip():
        return {}
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return {} if parsed is None else parsed


def _takes_objects(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type") or "object"
    return "object" in (
        str(kind).lower() for kind in (kinds if isinstance(kinds, list) else [kinds])
    )
