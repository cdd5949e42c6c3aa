"""Pure: checks a `GenerationRequest` and makes the `ValidRequest` that is published.

Every bound here is part of the public API and documented in proto/headrace/v1/. Every error
names the field as the caller wrote it, with its value and its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard, SamplingDefaults
from headrace.internal.v1.request_pb2 import Sampling
from headrace.sampling import PARAMETERS, SamplingParameter
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.fitting import check_prompt_size, max_tokens
from headrace_gateway.checks.rendering import rendering_of
from headrace_gateway.checks.structures import check_structure
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import (
    NAME,
    GenerationRequest,
    Terms,
    TokenIds,
)

MAX_CHOICES = 128
MAX_STOP_STRINGS = 1024
MAX_STOP_CHARACTERS = 256
MAX_STOP_CHARACTERS_IN_ALL = 16_384
MAX_BAD_WORDS = 128
MAX_SALT_CHARACTERS = 256
MAX_TOKEN_IDS = {"stop_token_ids": 64, "logit_bias": 1024, "allowed_token_ids": 10_000}
MAX_LOGPROBS = 20

_LOGPROBS: tuple[Literal["logprobs", "prompt_logprobs"], ...] = ("logprobs", "prompt_logprobs")
_GREEDY_BELOW = 1e-5


def check(request: GenerationRequest, card: ModelCard, settings: GatewaySettings) -> None:
    """Check everything that can be checked before the prompt is tokenized.

    Raises:
        InvalidRequest: a field is out of its range.
        ContextLengthExceeded: the prompt cannot fit, however it is tokenized.
        Unsupported: the model's engine does not support something that is requested.
    """
    check_request_id(request.request_id, request.name_of("request_id"))
    _check_choices(request, card)
    check_prompt_size(request, card, settings)
    _check_numbers(request, card)
    _check_texts(request)
    _check_token_ids(request, card)
    _check_masks(request, card)
    _check_logprobs(request, card)
    if request.parameters.HasField("structure"):
        check_structure(request.parameters.structure, card, request.name_of("structure"))
    times(request, settings)


def check_request_id(request_id: str, field: str = "request_id") -> None:
    """
    Raises:
        InvalidRequest: no request can have this id.
    """
    if not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"request_id {quoted(request_id)} is not 1 to 64 of A-Z a-z 0-9 _ -", field=field
        )


def valid_request(
    request: GenerationRequest,
    card: ModelCard,
    settings: GatewaySettings,
    prompt_ids: list[int],
    draw_seed: Callable[[], int],
) -> ValidRequest:
    """Return the request as it is published to its lane. Call `check` first.

    Raises:
        InvalidRequest: the prompt has no tokens.
        ContextLengthExceeded: prompt and requested output do not fit the context.
    """
    if not prompt_ids:
        raise InvalidRequest("the prompt has no tokens", field=request.prompt.field)
    timeout_s, patience_s = times(request, settings)
    sampling = _sampling(request.parameters, card, max_tokens(request, card, len(prompt_ids)))
    if request.parameters.HasField("structure"):
        sampling.grammar.structure.CopyFrom(request.parameters.structure)
        sampling.grammar.field = request.name_of("structure")
    return ValidRequest(
        request_id=request.request_id,
        card=card,
        prompt_ids=tuple(prompt_ids),
        sampling=sampling,
        seed=draw_seed() if request.seed is None else request.seed,
        n=request.n,
        priority=priority(request),
        tenant=request.caller.tenant,
        key_id=request.caller.key_id,
        person=request.caller.person,
        timeout_s=timeout_s,
        patience_s=patience_s,
        trace_context=dict(request.trace_context),
        rendering=rendering_of(request, card),
        cache_salt=request.cache_salt or "",
        resumable=request.stream or request.idempotent,
        once=request.idempotent or request.background,
        background=request.background,
        stored_response=request.stored_response,
        result_ttl_s=settings.detached_result_ttl_s if request.background else 0.0,
        row=request.row,
        is_part=request.is_part,
    )


def priority(request: Terms) -> Priority.ValueType:
    """Return the lane's priority: the requested one, or else the tenant's default.

    Raises:
        InvalidRequest: there is no such priority, or the tenant may not request it.
    """
    if request.priority not in Priority.values():
        raise InvalidRequest(
            f"unknown priority {request.priority}", field=request.name_of("priority")
        )
    return request.caller.priority(request.priority, field_name=request.name_of("priority"))


def times(request: Terms, settings: GatewaySettings) -> tuple[float, float]:
    """Return timeout and patience in seconds, bounded by the settings and the call's deadline."""
    if request.row is not None and request.time_remaining_s is not None:
        return request.time_remaining_s, request.time_remaining_s
    background = isinstance(request, GenerationRequest) and request.background
    max_timeout_s = settings.max_detached_s if background else settings.max_timeout_s
    max_patience_s = settings.max_detached_s if background else settings.max_patience_s
    timeout_s = _within("timeout", request, request.timeout_s, max_timeout_s)
    patience_s = _within("patience", request, request.patience_s, max_patience_s)
    if request.time_remaining_s is not None:
        timeout_s = min(timeout_s, request.time_remaining_s)
    return timeout_s, min(patience_s, timeout_s)


def _within(name: str, request: Terms, value_s: float | None, limit_s: float) -> float:
    if value_s is None:
        return limit_s
    if not 0 < value_s <= limit_s:
        raise InvalidRequest(
            f"{name} is {value_s:g} s; it must be more than 0 and at most {limit_s:g} s",
            field=request.name_of(name),
        )
    return value_s


def _check_choices(request: GenerationRequest, card: ModelCard) -> None:
    most = max_choices(card)
    if not 1 <= request.n <= most:
        raise InvalidRequest(
            f"n is {request.n}; model {card.model} makes 1 to {most} choices of one request",
            field=request.name_of("n"),
        )


def max_choices(card: ModelCard) -> int:
    return min(MAX_CHOICES, card.max_slots)


def _check_numbers(request: GenerationRequest, card: ModelCard) -> None:
    parameters = request.parameters
    if parameters.HasField("max_tokens") and parameters.max_tokens < 1:
        raise InvalidRequest(
            "max_tokens is 0; it must be at least 1", field=request.name_of("max_tokens")
        )
    for each in PARAMETERS.values():
        if (value := _set_value(parameters, each)) is None:
            continue
        field = request.name_of(each.name)
        if not each.allows(value):
            raise InvalidRequest(
                f"{each.name} is {value:g}; it must be in {each.range}", field=field
            )
        if value != each.neutral and not is_applied(card, each):
            raise Unsupported(
                f"the engine of model {card.model} does not support {each.name}", field=field
            )
    for token_id, bias in parameters.logit_bias.items():
        if not -100 <= bias <= 100:
            raise InvalidRequest(
                f"logit_bias of token {token_id} is {bias:g}; it must be in [-100, 100]",
                field=request.name_of("logit_bias"),
            )


def _check_logprobs(request: GenerationRequest, card: ModelCard) -> None:
    parameters = request.parameters
    for name in filter(parameters.HasField, _LOGPROBS):
        _require(card.capabilities.logprobs, request, card, name)
        field = request.name_of(name)
        if (count := getattr(parameters, name)) > MAX_LOGPROBS:
            raise InvalidRequest(
                f"{field} is {count}; it must be in [0, {MAX_LOGPROBS}]", field=field
            )


def _check_texts(request: GenerationRequest) -> None:
    stops, words = request.parameters.stop, request.parameters.bad_words
    name = request.name_of("stop")
    _check_lengths(stops, MAX_STOP_STRINGS, name, "stop string")
    if (total := sum(map(len, stops))) > MAX_STOP_CHARACTERS_IN_ALL:
        raise InvalidRequest(
            f"{name} has {total} characters in all; it may have {MAX_STOP_CHARACTERS_IN_ALL}",
            field=name,
        )
    _check_lengths(words, MAX_BAD_WORDS, request.name_of("bad_words"), "bad word")
    salt = request.cache_salt
    if salt is not None and not 1 <= len(salt) <= MAX_SALT_CHARACTERS:
        raise InvalidRequest(
            f"cache_salt has {len(salt)} characters; it must have 1 to {MAX_SALT_CHARACTERS}",
            field=request.name_of("cache_salt"),
        )


def _check_lengths(texts: Sequence[str], most: int, name: str, called: str) -> None:
    _check_count(len(texts), most, name)
    for i, text in enumerate(texts):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InvalidRequest(
                f"{called} {i} has {len(text)} characters; it must have 1 to {MAX_STOP_CHARACTERS}",
                field=f"{name}[{i}]",
            )


def _check_token_ids(request: GenerationRequest, card: ModelCard) -> None:
    parameters = request.parameters
    for name, most in MAX_TOKEN_IDS.items():
        token_ids, field = getattr(parameters, name), request.name_of(name)
        _check_count(len(token_ids), most, field)
        check_vocabulary(token_ids, card, field)
    if isinstance(request.prompt, TokenIds):
        check_vocabulary(request.prompt.token_ids, card, request.prompt.field)


def _check_masks(request: GenerationRequest, card: ModelCard) -> None:
    """Check parameters that mask tokens, and the salt of the prefix cache."""
    parameters = request.parameters
    for name in ("min_tokens", "bad_words", "allowed_token_ids"):
        if getattr(parameters, name):
            _require(card.capabilities.token_masks, request, card, name)
    if request.cache_salt:
        _require(card.capabilities.cache_salt, request, card, "cache_salt")
    if parameters.HasField("max_tokens") and parameters.min_tokens > parameters.max_tokens:
        field = request.name_of("min_tokens")
        raise InvalidRequest(
            f"{field} is {parameters.min_tokens}; it may be at most"
            f" {request.name_of('max_tokens')}, which is {parameters.max_tokens}",
            field=field,
        )


def _require(supported: bool, request: GenerationRequest, card: ModelCard, name: str) -> None:
    if not supported:
        field = request.name_of(name)
        raise Unsupported(f"model {card.model} does not support {name}", field=field)


def check_vocabulary(token_ids: Iterable[int], card: ModelCard, name: str) -> None:
    """
    Raises:
        InvalidRequest: a token id is none of the model's.
    """
    if (highest := max(token_ids, default=0)) >= card.vocabulary_size:
        raise InvalidRequest(
            f"{name} has token id {highest}, which is out of vocabulary: model {card.model} has"
            f" {card.vocabulary_size} token ids, from 0",
            field=name,
        )


def _check_count(count: int, most: int, name: str) -> None:
    if count > most:
        raise InvalidRequest(f"{name} has {count} entries; it may have {most}", field=name)


def _sampling(parameters: SamplingParameters, card: ModelCard, most_tokens: int) -> Sampling:
    numbers: dict[str, Any] = {
        name: _number(each, parameters, card) for name, each in PARAMETERS.items()
    }
    logprobs = {name: getattr(parameters, name) for name in _LOGPROBS if parameters.HasField(name)}
    # Why: logits divided by almost 0 overflow; such a temperature means greedy.
    if numbers["temperature"] < _GREEDY_BELOW:
        numbers["temperature"] = 0.0
    numbers["top_k"] = min(numbers["top_k"], card.vocabulary_size)
    return Sampling(
        max_tokens=most_tokens,
        logit_bias=parameters.logit_bias,
        stop_token_ids=parameters.stop_token_ids,
        ignore_eos=parameters.ignore_eos,
        min_tokens=min(parameters.min_tokens, most_tokens),
        allowed_token_ids=parameters.allowed_token_ids,
        **numbers,
        **logprobs,
    )


def _number(each: SamplingParameter, parameters: SamplingParameters, card: ModelCard) -> float:
    """Return the caller's value, else the model's own, else the neutral one."""
    value = _set_value(parameters, each)
    if value is None and each.model_default and is_applied(card, each):
        value = _set_value(card.defaults, each)
    return each.neutral if value is None else value


def _set_value(
    message: SamplingParameters | SamplingDefaults, each: SamplingParameter
) -> float | None:
    if not message.HasField(each.name):  # type: ignore[arg-type]
        return None
    value: float = getattr(message, each.name)
    return value


def is_applied(card: ModelCard, each: SamplingParameter) -> bool:
    """Return whether the model's engine applies a sampling parameter."""
    return each.everywhere or each.name in card.capabilities.sampling
