"""Pure: a response's body as that of the chat that it is, and what describes the response.

A chat with the same messages, tools and parameters has the same prompt and the same output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from headrace.errors import RequestError, Unsupported
from headrace.sampling import PARAMETERS
from headrace_gateway.api.bodies.convert import chat_request
from headrace_gateway.api.bodies.generation import ChatBody, validated
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.api.responses.wire.bodies import ENCRYPTED, CountBody, InputBody, ResponseBody
from headrace_gateway.api.responses.wire.items import as_messages
from headrace_gateway.api.responses.wire.resource import Description, response_id_of
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import Conversation, GenerationRequest

Json = dict[str, Any]

_SAME = (
    *("seed", "stop", "ignore_eos", "cache_salt", "service_tier", "priority", "user"),
    *("stream", "background", *PARAMETERS),
)
"""Fields of both bodies."""
_NAMES = {
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "structure": "text.format",
}
_RENAMED = (
    (re.compile(r"\bmessages\b"), "input"),
    (re.compile(r"\bmax_completion_tokens\b"), "max_output_tokens"),
    (re.compile(r"\bresponse_format(\.json_schema)?\b"), "text.format"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"(tools\[[0-9]+\])\.function\b"), r"\1"),
)


def response_request(
    body: ResponseBody, items: list[Json], call: Call, *, stored: bool
) -> GenerationRequest:
    """Return the request that answers a body whose whole input is these items.

    Raises:
        RequestError: the request is malformed, or not served.
    """
    chat = _chat(body, items) | {name: getattr(body, name) for name in _SAME}
    chat["max_completion_tokens"] = body.max_output_tokens
    if body.wants_logprobs:
        chat |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    request = _request(chat, call)
    # Why not from a cache: its answer has no record of its own, which could be found by its id.
    return replace(request, stored_response=stored, cached=request.cached and not stored)


def count_request(body: CountBody, items: list[Json], call: Call) -> GenerationRequest:
    """As `response_request`, of a body whose tokens are only counted."""
    return _request(_chat(body, items), call)


def _request(chat: Json, call: Call) -> GenerationRequest:
    given = {name: value for name, value in chat.items() if value is not None}
    with responses_names():
        request = chat_request(validated(ChatBody, given, UnknownFields(strict=False)), call)
    assert isinstance(request.prompt, Conversation)
    prompt = replace(request.prompt, field="input")
    return replace(request, prompt=prompt, names={**request.names, **_NAMES})


@contextmanager
def responses_names() -> Iterator[None]:
    """Name the fields of a response's body in errors that are raised inside of a chat's."""
    try:
        yield
    except RequestError as error:
        message, field = error.message, error.field or ""
        for pattern, name in _RENAMED:
            message, field = pattern.sub(name, message), pattern.sub(name, field)
        if (message, field) == (error.message, error.field or ""):
            raise
        raise type(error)(message, field=field or None) from error


def _chat(body: InputBody, items: list[Json]) -> Json:
    messages = as_messages(items)
    if body.instructions is not None:
        messages.insert(0, {"role": "system", "content": body.instructions})
    chat: Json = {"model": body.model, "messages": messages}
    if body.text is not None and body.text.format is not None:
        chat["response_format"] = _response_format(body.text.format)
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    return chat | _chat_tools(body)


def _response_format(given: Json) -> Json:
    if given.get("type") != "json_schema" or "json_schema" in given:
        return given
    schema = {name: value for name, value in given.items() if name != "type"}
    return {"type": "json_schema", "json_schema": schema}


def _chat_tools(body: InputBody) -> Json:
    choice, allowed = _tool_choice(body.tool_choice)
    tools = [
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}
        for tool in body.tools or ()
        if allowed is None or tool.name in allowed
    ]
    if not tools:
        # Clients send the other two fields whether or not they offer tools.
        return {} if choice in ("auto", "none") else {"tool_choice": choice}
    return {
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": body.parallel_tool_calls,
    }


def _tool_choice(choice: str | Json | None) -> tuple[str | Json, list[str] | None]:
    """Return the choice as a chat has it, and the names of the only allowed tools; None: all."""
    match choice:
        case None:
            return "auto", None
        case str():
            return choice, None
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}, None
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            names = [tool.get("name") for tool in tools if isinstance(tool, dict)]
            return mode, [name for name in names if isinstance(name, str)]
    raise Unsupported(
        "tool_choice of this kind is not served; none, auto, required, a function and allowed_tools"
        " are",
        field="tool_choice",
    )


def described(
    body: ResponseBody, request: GenerationRequest, items: list[Json], own_from: int, now_s: float
) -> Description:
    """Return the description of the response that a request makes."""
    reasoning = body.reasoning
    summary = None if reasoning is None else reasoning.summary or reasoning.generate_summary
    return Description(
        response_id=response_id_of(request.request_id),
        created_at=int(now_s),
        fields=_fields(body, summary),
        input=items,
        own_from=own_from,
        background=bool(body.background),
        conversation=body.conversation or "",
        logprobs=body.wants_logprobs,
        summarized=summary is not None,
        encrypted=ENCRYPTED in body.include,
        digest=body_digest(body) if request.idempotent else "",
    )


def body_digest(body: ResponseBody) -> str:
    """Return a digest of all of a body but how its answer is sent, and ids drawn for its items."""
    members = body.model_dump(mode="json", exclude={"stream", "stream_options"})
    members["input"] = [
        item if item["type"] == "item_reference" else item | {"id": ""} for item in body.input
    ]
    return blake2b(json.dumps(members, sort_keys=True).encode(), digest_size=16).hexdigest()


def _fields(body: ResponseBody, summary: str | None) -> Json:
    text = body.text
    form = None if text is None else text.format
    reasoning = body.reasoning
    tier = body.service_tier
    drawn = {name: getattr(body, name) for name in ("temperature", "top_p")}
    return {
        **drawn,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "conversation": None if not body.conversation else {"id": body.conversation},
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": summary,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default" if tier is None or tier == "auto" else tier,
        "text": {"format": form or {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [tool.model_dump() for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }
