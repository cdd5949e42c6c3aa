"""OpenAI's bodies to what the mesh understands: `GenerationRequest`."""

from __future__ import annotations

import dataclasses

from headrace.errors import InvalidRequest
from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.api.bodies.generation import Body, ChatBody, CompletionBody
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.bodies.structures import requested_structure
from headrace_gateway.api.bodies.tools import requested_tools, template_message
from headrace_gateway.base.calls import Call
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    Text,
    TokenIds,
)

PRIORITIES = {
    "auto": Priority.PRIORITY_UNSPECIFIED,
    "default": Priority.PRIORITY_STANDARD,
    "flex": Priority.PRIORITY_BULK,
    "priority": Priority.PRIORITY_INTERACTIVE,
}

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
    if body.top_logprobs:
        names["logprobs"] = "top_logprobs"
    parameters = _parameters(body, chat_output_options(body), max_tokens)
    prompt = Conversation(
        messages, documents=body.documents or (), opens_answer=opens, continues=continues
    )
    requested = _requested(body, call, prompt, parameters, names)
    return dataclasses.replace(requested, tools=requested_tools(body))


def completion_requests(body: CompletionBody, call: Call) -> list[GenerationRequest]:
    """What is requested of each prompt; all of them have the call's name."""
    requested = completion_request(body, call)
    prompts = [_prompt(body, number) for number in range(len(body.prompt))]
    return [dataclasses.replace(requested, prompt=prompt) for prompt in prompts]


def completion_request(body: CompletionBody, call: Call) -> GenerationRequest:
    """Return the request of the first prompt."""
    prompt = _prompt(body, 0)
    max_tokens = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    options = completion_output_options(body)
    if options.echo_only:
        max_tokens = 1
    return _requested(body, call, prompt, _parameters(body, options, max_tokens), {})


def _prompt(body: CompletionBody, number: int) -> Text | TokenIds:
    given = body.prompt[number]
    field = "prompt" if len(body.prompt) == 1 else f"prompt[{number}]"
    return Text(given, field) if isinstance(given, str) else TokenIds(given, field)


def chat_output_options(body: ChatBody) -> OutputOptions:
    """Return the options of what is sent beside the text."""
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return OutputOptions(
        chat=True,
        logprobs=logprobs,
        prompt_logprobs=body.prompt_logprobs,
        token_ids=bool(body.return_token_ids),
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
        echo_last_message=bool(body.echo),
    )


def completion_output_options(body: CompletionBody) -> OutputOptions:
    return OutputOptions(
        chat=False,
        logprobs=body.logprobs,
        prompt_logprobs=body.prompt_logprobs,
        token_ids=bool(body.return_token_ids),
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
        echo=bool(body.echo),
        echo_only=bool(body.echo) and body.max_tokens == 0,
    )


def _requested(
    body: Body,
    call: Call,
    prompt: Text | Conversation | TokenIds,
    parameters: SamplingParameters,
    names: dict[str, str],
) -> GenerationRequest:
    if (structure := requested_structure(body)) is not None:
        parameters.structure.CopyFrom(structure[0])
        names = {**names, "structure": structure[1]}
    return GenerationRequest(
        request_id=call.request_id if body.request_id is None else body.request_id,
        model=body.model,
        prompt=prompt,
        parameters=parameters,
        priority=priority_of(body.priority, body.service_tier),
        # Why: OpenAI's seeds are signed.
        seed=None if body.seed is None else body.seed % 2**64,
        n=1 if body.n is None else body.n,
        time_remaining_s=None if body.background else call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        stream=bool(body.stream),
        background=bool(body.background),
        cache_salt=body.cache_salt,
        truncate_tokens=body.truncate_prompt_tokens,
        adds_special_tokens=body.add_special_tokens,
        names={"priority": "priority" if body.priority else "service_tier", **names},
    )


def priority_of(number: int | None, tier: str | None) -> Priority.ValueType:
    """By vLLM's number, of which the lower goes first and 0 is what all have that name none; else
    by OpenAI's tier."""
    if not number:
        return PRIORITIES[tier or "auto"]
    return PRIORITIES["priority" if number < 0 else "flex"]


def _parameters(body: Body, options: OutputOptions, max_tokens: int | None) -> SamplingParameters:
    numbers = {name: getattr(body, name) for name in PARAMETERS}
    if numbers["top_k"] is not None:
        numbers["top_k"] = max(numbers["top_k"], 0)
    return SamplingParameters(
        max_tokens=max_tokens,
        logit_bias=_logit_bias(body.logit_bias or {}),
        stop=body.stop,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        bad_words=body.bad_words,
        allowed_token_ids=body.allowed_token_ids,
        keep_special_tokens=None
        if body.skip_special_tokens is None
        else not body.skip_special_tokens,
        include_stop=body.include_stop_str_in_output,
        logprobs=options.logprobs,
        prompt_logprobs=options.engine_prompt_logprobs,
        **numbers,
    )


def _logit_bias(entries: dict[str, float]) -> dict[int, float]:
    biases = {}
    for key, bias in entries.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise InvalidRequest(f"logit_bias: {quoted(key)} is no token id", field="logit_bias")
        biases[int(key)] = bias
    return biases
