"""Pure: the tools of a request, and the structure that constrains a model to call them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import Structure

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BREAKS = {"hermes": "\n", "hermes_inline": ""}
"""By the card's `tool_parser`: what stands between the tags and the JSON."""

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
    def binding(self) -> bool:
        """Whether calls are held to more than the names that are offered."""
        strict = any(tool.strict for tool in self.offered)
        return self.choice == "required" or strict or not self.parallel

    @property
    def usable(self) -> bool:
        """Whether the prompt names them and the output is searched for calls."""
        return bool(self.offered) and self.choice != "none"


def check_tools(tools: Tools, card: ModelCard, field: str, choice_field: str) -> None:
    """Refuse what cannot be offered to this model.

    Raises:
        Unsupported: the model does not support tool calling, or not a required tool call.
        InvalidRequest: too many, a bad name, the same name twice, parameters that are no object,
            or a choice of none of them.
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
        seen.add(tool.name)
    if tools.choice == "required" and (tools.only or not seen) and tools.only not in seen:
        raise InvalidRequest(f"{choice_field} is none of {field}", field=choice_field)
    if tools.usable and card.tool_parser not in _BREAKS:
        raise Unsupported(f"model {card.model} does not support tool calling", field=field)
    if tools.choice == "required" and not card.capabilities.grammar:
        raise Unsupported(
            f"model {card.model} does not support a required tool call",
            field=choice_field,
        )


def structure_of(tools: Tools, card: ModelCard) -> Structure | None:
    """Return the structure that holds the output to the tool choice; None if there is none.

    If the engine can, calls that the model makes by itself are held to the names of the offered
    tools, to their schemas where a tool is strict, and to one call where only one is
    requested. The text around them is free. A forced call is held to its schema as well, unless
    the tool is not strict and its schema cannot be enforced: then to any object.
    """
    if not tools.usable or not card.capabilities.grammar:
        return None
    forced = tools.choice == "required"
    line = _BREAKS[card.tool_parser]
    callable_ = [tool for tool in tools.offered if tools.only in ("", tool.name)]
    tags = [_tag(tool, line, forced=forced) for tool in callable_]
    shape: dict[str, Any] = {"tags": tags, "stop_after_first": not tools.parallel}
    if forced:
        shape |= {"type": "tags_with_separator", "separator": line, "at_least_one": True}
    else:
        shape |= {"type": "triggered_tags", "triggers": ["<tool_call>"]}
    return Structure(structural_tag=json.dumps({"type": "structural_tag", "format": shape}))


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


def _tag(tool: Tool, line: str, *, forced: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "type": "json_schema",
        "json_schema": {"type": "object", "additionalProperties": True},
    }
    if forced or tool.strict:
        # Why the type: what is no object is not taken for a call.
        content["json_schema"] = {**tool.schema, "type": "object"}
    if forced and not tool.strict:
        # Why: OpenAI takes any schema where `strict` is not set, and clients send what they have.
        content["best_effort"] = True
    return {
        "type": "tag",
        "begin": f'<tool_call>{line}{{"name": {json.dumps(tool.name)}, "arguments": ',
        "content": content,
        "end": f"}}{line}</tool_call>",
    }
