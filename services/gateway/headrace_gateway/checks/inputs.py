"""Pure: checks the inputs of vectors and scores, and splits them into requests."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import ContextLengthExceeded, InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.request_pb2 import Sampling
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.validation import check_vocabulary, priority, times
from headrace_gateway.request.generation import Input, ValidRequest
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    Text,
    TokenIds,
    VectorRequest,
)

MAX_INPUTS = 2048
MAX_CALL_TOKENS = 300_000
"""As OpenAI has both."""

_PART_INPUTS = 32
"""Of one request: few enough to start beside others, enough for passes that are full."""
_PART_TOKENS = 65_536
"""Of one request, unless a single input has more: some 200 KiB as a message."""


def check_inputs(
    inputs: Sequence[AnyInput], request: VectorRequest, card: ModelCard, settings: GatewaySettings
) -> None:
    """Check everything that can be checked before the inputs are tokenized.

    Args:
        inputs: those of `request` as the model takes them: with its prompts, or in pairs.

    Raises:
        InvalidRequest: there are none, too many, or a number is out of its range.
        ContextLengthExceeded: an input cannot fit, however it is tokenized.
    """
    check_input_count(len(request.inputs), request.name_of("inputs"))
    _check_truncation(request, card)
    most = card.context_tokens * settings.max_prompt_characters_per_token
    for each in inputs:
        if isinstance(each, TokenIds):
            check_vocabulary(each.token_ids, card, each.field)
        elif each.characters > most:
            raise ContextLengthExceeded(
                f"{_maximum(card)} However, {each.field} has {each.characters} characters, of which"
                f" at most {most} are taken. Please reduce its length.",
                field=each.field,
            )
    times(request, settings)


def check_input_count(count: int, name: str) -> None:
    """
    Raises:
        InvalidRequest: there are none, or too many.
    """
    if not 1 <= count <= MAX_INPUTS:
        raise InvalidRequest(
            f"{name} has {count} entries; it may have 1 to {MAX_INPUTS}", field=name
        )


def check_lengths(
    inputs: Sequence[AnyInput], request: VectorRequest, card: ModelCard, found: Sequence[Input]
) -> None:
    """Check the tokenized inputs.

    Args:
        found: `inputs` as the tokenizer has encoded them.

    Raises:
        InvalidRequest: an input has no tokens, or all of them have too many.
        ContextLengthExceeded: one has too many for the model.
    """
    for each, tokens in zip(inputs, found, strict=True):
        length = len(tokens.token_ids)
        if not length:
            raise InvalidRequest(f"{each.field} has no tokens", field=each.field)
        if length > card.context_tokens:
            raise ContextLengthExceeded(
                f"{_maximum(card)} However, {each.field} has {length} tokens. Please reduce its"
                f" length, or set {request.name_of('truncate_tokens')}.",
                field=each.field,
            )
    total = sum(len(tokens.token_ids) for tokens in found)
    if total > MAX_CALL_TOKENS:
        name = request.name_of("inputs")
        raise InvalidRequest(
            f"{name} has {total} tokens in all; one call may have {MAX_CALL_TOKENS}", field=name
        )


def requests_for(
    request: VectorRequest, card: ModelCard, settings: GatewaySettings, inputs: Sequence[Input]
) -> list[ValidRequest]:
    """Return a request for as many inputs as fit into one, in order; ids end in "-1", "-2", ..."""
    timeout_s, patience_s = times(request, settings)
    return [
        ValidRequest(
            request_id=request.request_id if number == 0 else f"{request.request_id}-{number}",
            card=card,
            prompt_ids=(),
            sampling=Sampling(),
            seed=0,
            n=len(part),
            priority=priority(request),
            tenant=request.caller.tenant,
            key_id=request.caller.key_id,
            person=request.caller.person,
            timeout_s=timeout_s,
            patience_s=patience_s,
            trace_context=dict(request.trace_context),
            inputs=tuple(part),
            row=request.row,
            is_part=number > 0,
        )
        for number, part in enumerate(_parts(inputs, min(_PART_INPUTS, card.max_slots)))
    ]


def prefixed(inputs: Sequence[AnyInput], prompt: str) -> list[AnyInput]:
    """Return the texts with the model's prompt before them, and token ids as they are."""
    return [
        Text(prompt + each.text, each.field) if isinstance(each, Text) else each for each in inputs
    ]


def prompt_text(card: ModelCard, name: str | None, field: str) -> str:
    """Return the model's prompt of this name; None is its default, "" none at all.

    Raises:
        InvalidRequest: it has none of this name.
    """
    prompts = card.vectors.prompts
    if name is None:
        return prompts.get(card.vectors.default_prompt, "")
    if name and name not in prompts:
        known = ", ".join(sorted(prompts)) or "none"
        raise InvalidRequest(
            f"model {card.model} has no prompt {name[:64]!a}; it has: {known}", field=field
        )
    return prompts[name] if name else ""


def _parts(inputs: Sequence[Input], most: int) -> list[list[Input]]:
    parts: list[list[Input]] = []
    room = 0
    for each in inputs:
        room -= len(each.token_ids)
        if not parts or room < 0 or len(parts[-1]) == most:
            parts.append([])
            room = _PART_TOKENS - len(each.token_ids)
        parts[-1].append(each)
    return parts


def _maximum(card: ModelCard) -> str:
    """Return the sentence of OpenAI's refusals by which clients know a text that is too long."""
    return f"This model's maximum context length is {card.context_tokens} tokens."


def check_top_n(top_n: int | None) -> None:
    """
    Raises:
        InvalidRequest: it is below 1.
    """
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"top_n is {top_n}; it must be at least 1", field="top_n")


def longest_input(request: VectorRequest, card: ModelCard) -> int | None:
    """Return to how many tokens inputs are truncated; None: they are not."""
    cut = request.truncate_tokens
    return card.context_tokens if cut == WHOLE_CONTEXT else cut


def _check_truncation(request: VectorRequest, card: ModelCard) -> None:
    cut = longest_input(request, card)
    if cut is not None and not 1 <= cut <= card.context_tokens:
        name = request.name_of("truncate_tokens")
        raise InvalidRequest(
            f"{name} is {cut}; for model {card.model} it must be 1 to {card.context_tokens}",
            field=name,
        )
