"""Converts OpenAI's bodies to `GenerationRequest`."""

from __future__ import annotations

import dataclasses
from hashlib import blake2b

from headrace.errors import InvalidRequest
from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.api.bodies.generation import Body, ChatBody, CompletionBody
from headrace_gateway.api.bodies.structures import requested_structure
from headrace_gateway.api.bodies.tools import requested_tools, template_message
from headrace_gateway.base.calls import BatchRow, Call, wants_cache
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    ReasoningOptions,
    Text,
    TokenIds,
)

_SAME_NAMES = (
    *("stop", "stop_token_ids", "ignore_eos", "min_tokens", "bad_words", "allowed_token_ids"),
    *PARAMETERS,
)
"""Fields that are SamplingParameters' own."""
_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens for completions; chat's is the room that is left."""


def chat_request(body: ChatBody, call: Call) -> GenerationRequest:
    messages = [
        template_message(message, f"messages[{i}]") for i, message in enumerate(body.messages)
    ]
    continues = bool(body.continue_final_message)
    if continues and messages and messages[-1].get("tool_calls"):
        raise InvalidRequest(
            "the last message calls tools, and cannot be continued", field="continue_final_message"
        )
    opens = not continues if body.add_generation_prompt is None else body.add_generation_prompt
    newer = body.max_completion_tokens is not None
    max_tokens = body.max_completion_tokens if newer else body.max_tokens
    names = {"max_tokens": "max_completion_tokens"} if newer else {}
    names["reasoning_budget"] = "thinking_token_budget"
    if body.top_logprobs:
        names["logprobs"] = "top_logprobs"
    prompt = Conversation(
        messages, documents=body.documents or (), opens_answer=opens, continues=continues
    )
    requested = _requested(body, call, prompt, max_tokens, names)
    reasoning = ReasoningOptions(
        body.chat_template_kwargs or {}, body.reasoning_effort or "", body.thinking_token_budget
    )
    return dataclasses.replace(requested, tools=requested_tools(body), reasoning=reasoning)


def completion_requests(body: CompletionBody, call: Call) -> list[GenerationRequest]:
    """Return a request for each prompt; all of them have the id of the call."""
    max_tokens = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if body.output_options.echo_only:
        max_tokens = 1
    first, *others = (_prompt(body, number) for number in range(len(body.prompt)))
    requested = _requested(body, call, first, max_tokens, {})
    if others and call.row is not None:
        # Why not in the background: each prompt is a request of its own, found by its own name.
        requested = dataclasses.replace(requested, background=False)
    return [requested, *(dataclasses.replace(requested, prompt=prompt) for prompt in others)]


def _prompt(body: CompletionBody, number: int) -> Text | TokenIds:
    given = body.prompt[number]
    field = "prompt" if len(body.prompt) == 1 else f"prompt[{number}]"
    return Text(given, field) if isinstance(given, str) else TokenIds(given, field)


def _requested(
    body: Body,
    call: Call,
    prompt: Text | Conversation | TokenIds,
    max_tokens: int | None,
    names: dict[str, str],
) -> GenerationRequest:
    parameters = _parameters(body, max_tokens)
    if (structure := requested_structure(body)) is not None:
        parameters.structure.CopyFrom(structure[0])
        names = {**names, "structure": structure[1]}
    requested = GenerationRequest(
        request_id=call.request_id if body.request_id is None else body.request_id,
        model=body.model,
        prompt=prompt,
        parameters=parameters,
        priority=body.lane_priority,
        # Why: OpenAI's seeds are signed.
        seed=None if body.seed is None else body.seed % 2**64,
        n=1 if body.n is None else body.n,
        time_remaining_s=None if body.background else call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        stream=bool(body.stream),
        background=bool(body.background),
        cached=wants_cache(call),
        cache_salt=body.cache_salt,
        truncate_tokens=body.truncate_prompt_tokens,
        adds_special_tokens=body.add_special_tokens,
        names={"priority": body.priority_field, **names},
    )
    return requested if call.row is None else _of_row(requested, call, call.row)


def _of_row(requested: GenerationRequest, call: Call, row: BatchRow) -> GenerationRequest:
    """Return the request of a row of a batch, which runs without a reader and has a name."""
    name = f"{call.caller.tenant}\0{row.name}".encode()
    # Why of the row: whichever of its runs answers, the answer is the same.
    drawn = int.from_bytes(blake2b(name, digest_size=8).digest())
    return dataclasses.replace(
        requested,
        request_id=row.name,
        row=row,
        priority=Priority.PRIORITY_BULK,
        seed=drawn if requested.seed is None else requested.seed,
        time_remaining_s=call.time_remaining_s,
        stream=False,
        background=True,
        idempotent=True,
    )


def _parameters(body: Body, max_tokens: int | None) -> SamplingParameters:
    same = {name: getattr(body, name) for name in _SAME_NAMES}
    if same["top_k"] is not None:
        same["top_k"] = max(same["top_k"], 0)
    return SamplingParameters(
        max_tokens=max_tokens,
        logit_bias=_logit_bias(body.logit_bias or {}),
        keep_special_tokens=None
        if body.skip_special_tokens is None
        else not body.skip_special_tokens,
        include_stop=body.include_stop_str_in_output,
        logprobs=body.output_options.logprobs,
        prompt_logprobs=body.output_options.engine_prompt_logprobs,
        **same,
    )


def _logit_bias(entries: dict[str, float]) -> dict[int, float]:
    biases = {}
    for key, bias in entries.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise InvalidRequest(f"logit_bias: {quoted(key)} is no token id", field="logit_bias")
        biases[int(key)] = bias
    return biases
