"""Converts OpenAI's tools, tool choices and the tool calls of earlier messages."""

from __future__ import annotations

from typing import Any

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.api.bodies.generation import ChatBody, Message
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.tools import Choice, Tool, Tools, as_object


def requested_tools(body: ChatBody) -> Tools:
    """
    Raises:
        InvalidRequest: a tool or the choice of one is malformed; the error names the field.
        Unsupported: it is of a type that is not served.
    """
    offered = tuple(_tool(entry, f"tools[{i}]") for i, entry in enumerate(body.tools or ()))
    choice, only = _choice(body.tool_choice)
    return Tools(offered, choice, only, parallel=body.parallel_tool_calls is not False)


def _tool(entry: dict[str, Any], field: str) -> Tool:
    function = _function(entry, field, ("function",))
    name, description = function.get("name"), function.get("description") or ""
    if not isinstance(name, str) or not isinstance(description, str):
        raise InvalidRequest(f"{field}.function.name is missing", field=f"{field}.function.name")
    parameters = function.get("parameters")
    if parameters is not None:
        parameters = _object(parameters, f"{field}.function.parameters")
    return Tool(name, description, parameters, strict=function.get("strict") is True)


def _choice(value: str | dict[str, Any] | None) -> tuple[Choice, str]:
    match value:
        case None | "auto":
            return "auto", ""
        case "none" | "required":
            return value, ""
        case {"type": "function", "function": {"name": str(name)}}:
            return "required", name or "?"
    raise Unsupported("tool_choice of this kind is not served", field="tool_choice")


def template_message(message: Message, field: str) -> dict[str, Any]:
    """Return a message as chat templates take it: arguments of calls are objects, not text."""
    converted: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.content is None and message.refusal:
        converted["content"] = message.refusal
    if message.name is not None:
        converted["name"] = message.name
    if message.tool_call_id is not None:
        converted["tool_call_id"] = message.tool_call_id
    if (reasoning := message.reasoning_content or message.reasoning) is not None:
        converted["reasoning_content"] = reasoning
    calls = [
        _call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())
    ]
    if message.function_call is not None:
        older = {"type": "function", "function": message.function_call}
        calls.append(_call(older, f"{field}.function_call"))
    if calls:
        converted["tool_calls"] = calls
    return converted


def _call(call: dict[str, Any], field: str) -> dict[str, Any]:
    function = _function(call, field, ("function", None))
    name = function.get("name")
    if not isinstance(name, str) or "arguments" not in function:
        raise InvalidRequest(f"{field}.function needs a name and arguments", field=field)
    arguments = function["arguments"]
    if not isinstance(arguments, str | dict | None):
        raise InvalidRequest(f"{field}.function.arguments should be a text", field=field)
    return tool_call(str(call.get("id") or ""), name, as_object(arguments))


def tool_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call as OpenAI and chat templates have it; templates take objects."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _function(entry: dict[str, Any], field: str, types: tuple[str | None, ...]) -> dict[str, Any]:
    """Return the function of a tool or of a call.

    Raises:
        Unsupported: it is of another type.
        InvalidRequest: it has none.
    """
    if (kind := entry.get("type")) not in types:
        raise Unsupported(f"{field}: type {quoted(str(kind))} is not served", field=f"{field}.type")
    return _object(entry.get("function"), f"{field}.function")


def _object(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} should be an object", field=field)
    return value
