"""Pure: puts the reasoning options of a request, and the model's own, into its prompt."""

from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf.json_format import MessageToDict

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.base.quoting import quoted
from headrace_gateway.parsers.registry import THINK
from headrace_gateway.request.generation_request import (
    EFFORTS,
    REASONING_SWITCHES,
    Conversation,
    GenerationRequest,
)

_RESERVED = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("chat_template", "tokenize", "return_dict"),
    )
)
"""Variables of templates that come from elsewhere, and arguments of those that render them."""


def apply_reasoning(request: GenerationRequest, card: ModelCard) -> GenerationRequest:
    """Return the request with the variables of its chat template.

    Raises:
        InvalidRequest: it has no conversation, an unknown effort, or a variable that comes from
            elsewhere.
        Unsupported: a budget, which this model cannot keep.
    """
    options, prompt = request.reasoning, request.prompt
    if not isinstance(prompt, Conversation):
        if options.any_requested:
            name = _first_set(request)
            raise InvalidRequest(f"{name} is for conversations only", field=name)
        return request
    _check(request, card)
    variables: dict[str, Any] = MessageToDict(card.chat_template_kwargs)
    if options.effort:
        variables |= dict.fromkeys(REASONING_SWITCHES, options.effort != "none")
        variables["reasoning_effort"] = options.effort
    variables |= options.template_kwargs
    if not variables:
        return request
    return dataclasses.replace(
        request, prompt=dataclasses.replace(prompt, template_kwargs=variables)
    )


def _check(request: GenerationRequest, card: ModelCard) -> None:
    options = request.reasoning
    if options.effort and options.effort not in EFFORTS:
        name = request.name_of("reasoning_effort")
        raise InvalidRequest(
            f"{name} {quoted(options.effort)} is none of {', '.join(EFFORTS)}", field=name
        )
    name = request.name_of("chat_template_kwargs")
    for variable in options.template_kwargs.keys() & _RESERVED:
        raise InvalidRequest(
            f"{name} has {variable}, which the request sets by itself", field=f"{name}.{variable}"
        )
    if options.budget is not None and not keeps_budget(card):
        name = request.name_of("reasoning_budget")
        raise Unsupported(f"model {card.model} does not support {name}", field=name)


def keeps_budget(card: ModelCard) -> bool:
    """Return whether the model's reasoning can be ended after so many tokens."""
    return card.reasoning_parser in THINK and card.capabilities.token_masks


def _first_set(request: GenerationRequest) -> str:
    options = request.reasoning
    found = {
        "chat_template_kwargs": bool(options.template_kwargs),
        "reasoning_effort": bool(options.effort),
        "reasoning_budget": options.budget is not None,
    }
    return request.name_of(next(name for name, is_set in found.items() if is_set))
