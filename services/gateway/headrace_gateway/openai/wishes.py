"""OpenAI's bodies to what the mesh understands: `Wanted`."""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.calls import Call
from headrace_gateway.openai.bodies import Body, ChatBody, CompletionBody
from headrace_gateway.quoting import quoted
from headrace_gateway.wanted import Conversation, Text, TokenIds, Wanted

_PRIORITIES = {
    "auto": Priority.PRIORITY_STANDARD,
    "default": Priority.PRIORITY_STANDARD,
    "flex": Priority.PRIORITY_BULK,
    "priority": Priority.PRIORITY_INTERACTIVE,
}

_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens for completions; chat's is the room that is left."""

_PLAIN = ("temperature", "top_p", "min_p", "repetition_penalty")
_PENALTIES = ("presence_penalty", "frequency_penalty")


def wanted_chat(body: ChatBody, call: Call) -> Wanted:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    newer = body.max_completion_tokens is not None
    max_tokens = body.max_completion_tokens if newer else body.max_tokens
    names = {"max_tokens": "max_completion_tokens"} if newer else {}
    return _wanted(body, call, Conversation(messages), max_tokens, names)


def wanted_completion(body: CompletionBody, call: Call) -> Wanted:
    prompt = (
        Text(body.prompt) if isinstance(body.prompt, str) else TokenIds(body.prompt, field="prompt")
    )
    max_tokens = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    return _wanted(body, call, prompt, max_tokens, {})


def _wanted(
    body: Body,
    call: Call,
    prompt: Text | Conversation | TokenIds,
    max_tokens: int | None,
    names: dict[str, str],
) -> Wanted:
    return Wanted(
        request_id=call.request_id,
        model=body.model,
        prompt=prompt,
        parameters=_parameters(body, max_tokens),
        priority=_PRIORITIES[body.service_tier or "auto"],
        # Why: OpenAI's seeds are signed.
        seed=None if body.seed is None else body.seed % 2**64,
        n=1 if body.n is None else body.n,
        time_remaining_s=call.time_remaining_s,
        trace_context=call.trace_context,
        names=names,
    )


def _parameters(body: Body, max_tokens: int | None) -> SamplingParameters:
    given = {name: getattr(body, name) for name in (*_PLAIN, *_PENALTIES)}
    return SamplingParameters(
        max_tokens=max_tokens,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        logit_bias=_logit_bias(body.logit_bias or {}),
        stop=body.stop,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        **given,
    )


def _logit_bias(entries: dict[str, float]) -> dict[int, float]:
    biases = {}
    for key, bias in entries.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise InvalidRequest(f"logit_bias: {quoted(key)} is no token id", field="logit_bias")
        biases[int(key)] = bias
    return biases
