"""Converts native messages to `GenerationRequest`, and ids of requests to keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.errors import InvalidRequest
from headrace.request_keys import request_key
from headrace.v1.common_pb2 import SamplingParameters
from headrace.v1.generation_pb2 import ChatMessage, GenerateRequest
from headrace.v1.models_pb2 import TokenizeRequest
from headrace_gateway.api.bodies.tools import tool_call
from headrace_gateway.api.native.tools import requested_tools
from headrace_gateway.base.calls import Call, wants_cache
from headrace_gateway.checks.validation import check_request_id
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    ReasoningOptions,
    Text,
    TokenIds,
)
from headrace_gateway.request.tools import as_object

Prompt = Text | Conversation | TokenIds

_NAMES = {name: f"parameters.{name}" for name in SamplingParameters.DESCRIPTOR.fields_by_name}


def generate_request(
    request: GenerateRequest, call: Call, *, stream: bool = False
) -> GenerationRequest:
    """Return what is requested; its id is the caller's own or, without one, the call's."""
    prompts: list[Prompt] = []
    if request.prompt:
        prompts.append(Text(request.prompt))
    if request.messages:
        prompts.append(_conversation(request.messages))
    if request.prompt_token_ids:
        prompts.append(TokenIds(list(request.prompt_token_ids)))
    return GenerationRequest(
        request_id=request.request_id or call.request_id,
        model=request.model,
        prompt=_only(prompts, "prompt, messages and prompt_token_ids"),
        parameters=request.parameters,
        priority=request.priority,
        seed=optional(request, "seed"),
        n=request.n if request.HasField("n") else 1,
        timeout_s=optional_s(request, "timeout"),
        patience_s=optional_s(request, "patience"),
        time_remaining_s=None if request.detached else call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        tools=requested_tools(request),
        reasoning=ReasoningOptions(
            MessageToDict(request.chat_template_kwargs),
            request.reasoning_effort,
            optional(request, "reasoning_budget"),
        ),
        stream=stream,
        background=request.detached,
        cache_salt=optional(request, "cache_salt"),
        truncate_tokens=optional(request, "truncate_prompt_tokens"),
        cached=wants_cache(call),
        names=_NAMES,
    )


def tokenize_request(request: TokenizeRequest, call: Call) -> GenerationRequest:
    prompts: list[Prompt] = []
    if request.text:
        prompts.append(Text(request.text, field="text"))
    if request.messages:
        prompts.append(_conversation(request.messages))
    return GenerationRequest(
        request_id=call.request_id,
        model=request.model,
        prompt=_only(prompts, "text and messages"),
        parameters=SamplingParameters(),
        caller=call.caller,
    )


def _only(prompts: list[Prompt], fields: str) -> Prompt:
    if len(prompts) != 1:
        raise InvalidRequest(
            f"exactly one of {fields} is to be set; {len(prompts)} are",
            field=prompts[-1].field if prompts else fields.split(maxsplit=1)[0].rstrip(","),
        )
    return prompts[0]


def _conversation(messages: Iterable[ChatMessage]) -> Conversation:
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.name:
            turn["name"] = message.name
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
        if message.tool_call_id:
            turn["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            turn["tool_calls"] = [
                tool_call(call.call_id, call.name, as_object(call.arguments))
                for call in message.tool_calls
            ]
        turns.append(turn)
    return Conversation(turns)


def optional(message: Message, field: str) -> Any:
    """Return the value of a field; None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def optional_s(message: Message, field: str) -> float | None:
    """Return a duration in seconds; None where it is not set."""
    duration = optional(message, field)
    return None if duration is None else duration.seconds + duration.nanos / 1e9


def key_of_request(request_id: str, call: Call) -> str:
    """Return the key of the caller's request of this id.

    Raises:
        InvalidRequest: no request can have this id, or the call names no valid caller.
    """
    # Why: keys become subjects of the bus, where dots and stars mean something.
    check_request_id(request_id)
    return request_key(call.caller.tenant, request_id)
