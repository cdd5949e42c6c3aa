"""The messages that the clients send, made of what callers write. Pure but for ids.

[("system", "Be brief."), "Hello"]                 two messages; a text alone is a user's
{"role": "assistant", "content": "…", "reasoning": "…", "tool_calls": […]}
                                                   as `Answer.message`, or in OpenAI's form
{"name": "get_weather", "parameters": {…}}         a tool, or in OpenAI's form
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Unpack
from uuid import uuid4

from headrace.client.sampling import Sampling
from headrace.errors import InvalidRequest
from headrace.v1 import common_pb2
from headrace.v1.common_pb2 import Priority, SamplingParameters, Structure
from headrace.v1.generation_pb2 import (
    ChatMessage,
    GenerateRequest,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from headrace.v1.requests_pb2 import GetRequestRequest

Message = str | tuple[str, str] | Mapping[str, Any]
Prompt = str | Iterable[Message]
"""Plain text, or a conversation."""

_SAMPLING = frozenset(Sampling.__annotations__)
_LISTS = frozenset(
    field.name for field in SamplingParameters.DESCRIPTOR.fields if field.is_repeated
)
_STRUCTURES = ("json_schema", "regex", "ebnf")


class GenerateOptions(Sampling, total=False):
    """Fields of `headrace.v1.GenerateRequest`; absent: as the mesh has them."""

    seed: int | None
    """Equal seeds give equal output."""
    n: int | None
    """Choices."""
    priority: str | None
    """"interactive", "standard" or "bulk"."""
    timeout_s: float | None
    patience_s: float | None
    """Longest wait for a worker."""
    request_id: str | None
    """Default: an id that is made here."""
    cache_salt: str | None
    truncate_prompt_tokens: int | None
    json_schema: Mapping[str, Any] | str | None
    """What the output must match; at most one of this and the next three."""
    json_object: bool | None
    regex: str | None
    ebnf: str | None


class ChatOptions(GenerateOptions, total=False):
    """The same, with what only conversations have."""

    tools: Iterable[Mapping[str, Any]]
    tool_choice: str | None
    """"auto", "none", "required", or the name of the one function to call."""
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    """"none", "minimal", "low", "medium", "high", "xhigh" or "max"."""
    reasoning_budget: int | None
    """Most tokens of reasoning."""
    chat_template_kwargs: Mapping[str, Any]


def make_request(
    prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
) -> GenerateRequest:
    """Return the message that the clients send.

    Raises:
        InvalidRequest: a message or parameter cannot be read.
    """
    try:
        request = GenerateRequest(model=model, seed=seed, parameters=_parameters(dict(sampling)))
        _set_prompt(request, prompt)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error
    return request


def generation_request(prompt: Prompt, model: str, options: ChatOptions) -> GenerateRequest:
    """Return the message of a request, which has an id.

    Raises:
        InvalidRequest: a message, tool or option cannot be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    sampling = {name: given.pop(name) for name in _SAMPLING & given.keys()}
    request = GenerateRequest(model=model)
    try:
        request.parameters.CopyFrom(_parameters(sampling))
        _set_prompt(request, prompt)
        _set_structure(request, given)
        _set_options(request, given)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error
    # Why an id of our own: the call may be sent again, and the second must not start another.
    request.request_id = request.request_id or uuid4().hex
    return request


def _parameters(given: dict[str, Any]) -> SamplingParameters:
    if isinstance(stop := given.get("stop"), str):
        given["stop"] = [stop]
    for name, value in given.items():
        if name in _LISTS:
            listed(value, name)
    return SamplingParameters(**given)


def listed(value: Any, name: str) -> Any:
    """Return a list as it is. InvalidRequest: it is a text, which would be cut into letters."""
    if isinstance(value, str | bytes):
        raise InvalidRequest(f"{name} is a text; it has to be a list", field=name)
    return value


def priority_of(value: Any) -> Priority.ValueType:
    """Return the priority of this name, "interactive", "standard" or "bulk"."""
    name = f"PRIORITY_{str(value).upper()}"
    if name not in Priority.keys() or name == "PRIORITY_UNSPECIFIED":  # noqa: SIM118
        raise InvalidRequest(
            f"priority is {value!r}; it is interactive, standard or bulk", field="priority"
        )
    return Priority.Value(name)


def _set_options(request: GenerateRequest, given: dict[str, Any]) -> None:
    for name in ("timeout", "patience"):
        if (seconds := given.pop(f"{name}_s", None)) is not None:
            getattr(request, name).FromMilliseconds(round(seconds * 1000))
    if (priority := given.pop("priority", None)) is not None:
        request.priority = priority_of(priority)
    request.tools.extend(_tool(tool) for tool in listed(given.pop("tools", ()), "tools"))
    if (choice := given.pop("tool_choice", None)) is not None:
        request.tool_choice.CopyFrom(_tool_choice(choice))
    request.chat_template_kwargs.update(given.pop("chat_template_kwargs", {}))
    for name, value in given.items():
        if name not in GenerateRequest.DESCRIPTOR.fields_by_name:
            raise InvalidRequest(f"{name} is no option of this call", field=name)
        setattr(request, name, value)
    if not request.chat_template_kwargs.fields:
        request.ClearField("chat_template_kwargs")


def _set_structure(request: GenerateRequest, given: dict[str, Any]) -> None:
    forms = {name: given.pop(name) for name in _STRUCTURES if name in given}
    if given.pop("json_object", False):
        forms["json_object"] = common_pb2.JsonObject()
    if len(forms) > 1:
        raise InvalidRequest(f"one of {' and '.join(forms)} can be set, not both")
    if isinstance(schema := forms.get("json_schema"), Mapping):
        forms["json_schema"] = json.dumps(schema)
    if forms:
        request.parameters.structure.CopyFrom(Structure(**forms))


def _set_prompt(request: GenerateRequest, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.messages.extend(_message(each, at) for at, each in enumerate(prompt))


def _message(message: Message, at: int) -> ChatMessage:
    if isinstance(message, str):
        return ChatMessage(role="user", content=message)
    if not isinstance(message, Mapping):
        role, content = message
        return ChatMessage(role=role, content=content)
    return ChatMessage(
        role=message.get("role", ""),
        content=_text(message.get("content"), f"messages[{at}].content"),
        name=message.get("name") or "",
        tool_call_id=message.get("tool_call_id") or "",
        tool_calls=[_call(call) for call in message.get("tool_calls") or ()],
        reasoning=message.get("reasoning") or message.get("reasoning_content") or "",
    )


def _text(content: Any, field: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise InvalidRequest(f"{field} has a part that is not text", field=field)
        texts.append(text)
    return "".join(texts)


def _call(call: Mapping[str, Any]) -> common_pb2.ToolCall:
    function = call.get("function", call)
    arguments = function.get("arguments") or ""
    return common_pb2.ToolCall(
        call_id=call.get("call_id") or call.get("id") or "",
        name=function.get("name", ""),
        arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
    )


def _tool(tool: Mapping[str, Any]) -> Tool:
    function = tool.get("function", tool)
    parameters = function.get("parameters") or ""
    return Tool(
        name=function.get("name", ""),
        description=function.get("description") or "",
        parameters=parameters if isinstance(parameters, str) else json.dumps(parameters),
        strict=bool(function.get("strict")),
    )


def _tool_choice(choice: str) -> ToolChoice:
    if choice in ("auto", "none", "required"):
        return ToolChoice(mode=ToolChoiceMode.Value(f"TOOL_CHOICE_MODE_{choice.upper()}"))
    return ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED, name=choice)


def get_request(request_id: str, wait_s: float) -> GetRequestRequest:
    request = GetRequestRequest(request_id=request_id)
    if wait_s:
        request.wait.FromMilliseconds(round(wait_s * 1000))
    return request
