"""Pure room: a caller's wishes to a request that nobody needs to check again.

Every bound here is part of the public API and written in proto/headrace/v1/;
every refusal names the field as the caller wrote it, and has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard, SamplingDefaults
from headrace.internal.v1.request_pb2 import Sampling
from headrace.sampling import PARAMETERS, SamplingParameter
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.base.quoting import quoted
from headrace_gateway.checks.fitting import check_prompt_size, max_tokens
from headrace_gateway.checks.limits import Limits
from headrace_gateway.checks.structures import check_structure
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import NAME, Terms, TokenIds, Wanted

MAX_CHOICES = 128
MAX_STOP_STRINGS = 1024
MAX_STOP_CHARACTERS = 256
MAX_STOP_CHARACTERS_IN_ALL = 16_384
MAX_BAD_WORDS = 128
MAX_ALLOWED_TOKEN_IDS = 10_000
MAX_SALT_CHARACTERS = 256
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20

_LOGPROBS: tuple[Literal["logprobs", "prompt_logprobs"], ...] = ("logprobs", "prompt_logprobs")
_GREEDY_BELOW = 1e-5


def check(wanted: Wanted, card: ModelCard, limits: Limits) -> None:
    """Everything that can be refused without tokens.

    Raises:
        InvalidRequest: a field is out of its range.
        ContextLengthExceeded: the prompt cannot fit, however it is tokenised.
        Unsupported: the model's engine cannot do something that is asked for.
    """
    if not NAME.fullmatch(wanted.request_id):
        raise InvalidRequest(
            f"request_id {quoted(wanted.request_id)} is not 1 to 64 of A-Z a-z 0-9 _ -",
            field=wanted.name_of("request_id"),
        )
    _check_choices(wanted, card)
    check_prompt_size(wanted, card, limits)
    _check_numbers(wanted, card)
    _check_texts(wanted)
    _check_token_ids(wanted, card)
    _check_masks(wanted, card)
    _check_logprobs(wanted, card)
    if wanted.parameters.HasField("structure"):
        check_structure(wanted.parameters.structure, card, wanted.name_of("structure"))
    times(wanted, limits)


def valid_request(
    wanted: Wanted,
    card: ModelCard,
    limits: Limits,
    prompt_ids: list[int],
    draw_seed: Callable[[], int],
) -> ValidRequest:
    """The request as it goes into its lane; `check` has passed.

    Raises:
        InvalidRequest: the prompt has no tokens.
        ContextLengthExceeded: prompt and wanted output do not fit the context.
    """
    if not prompt_ids:
        raise InvalidRequest("the prompt has no tokens", field=wanted.prompt.field)
    timeout_s, patience_s = times(wanted, limits)
    sampling = _sampling(wanted.parameters, card, max_tokens(wanted, card, len(prompt_ids)))
    if wanted.parameters.HasField("structure"):
        sampling.grammar.structure.CopyFrom(wanted.parameters.structure)
        sampling.grammar.field = wanted.name_of("structure")
    return ValidRequest(
        request_id=wanted.request_id,
        card=card,
        prompt_ids=tuple(prompt_ids),
        sampling=sampling,
        seed=draw_seed() if wanted.seed is None else wanted.seed,
        n=wanted.n,
        priority=priority(wanted, limits),
        tenant=limits.tenants.of(wanted.headers),
        timeout_s=timeout_s,
        patience_s=patience_s,
        trace_context=dict(wanted.trace_context),
        stop=tuple(wanted.parameters.stop),
        calls_tools=wanted.tools.usable,
        keeps_special=wanted.parameters.keep_special_tokens,
        includes_stop=wanted.parameters.include_stop,
        cache_salt=wanted.cache_salt or "",
        attachable=wanted.streams or wanted.returns,
        once=wanted.returns or wanted.detached,
        detached=wanted.detached,
        result_ttl_s=limits.detached_result_ttl_s if wanted.detached else 0.0,
    )


def priority(wanted: Terms, limits: Limits) -> Priority.ValueType:
    """The lane's priority; unset is the tenant's, STANDARD where it has none."""
    if wanted.priority not in Priority.values():
        raise InvalidRequest(
            f"priority is {wanted.priority}, which is none", field=wanted.name_of("priority")
        )
    tenants = limits.tenants
    field_name = wanted.name_of("priority")
    return tenants.priority(tenants.of(wanted.headers), wanted.priority, field_name=field_name)


def times(wanted: Terms, limits: Limits) -> tuple[float, float]:
    """Timeout and patience in seconds, within the limits and the call's own deadline."""
    timeout_s = _within("timeout", wanted, wanted.timeout_s, limits.max_timeout_s)
    patience_s = _within("patience", wanted, wanted.patience_s, limits.max_patience_s)
    if wanted.time_remaining_s is not None:
        timeout_s = min(timeout_s, wanted.time_remaining_s)
    return timeout_s, min(patience_s, timeout_s)


def _within(name: str, wanted: Terms, value_s: float | None, limit_s: float) -> float:
    if value_s is None:
        return limit_s
    if not 0 < value_s <= limit_s:
        raise InvalidRequest(
            f"{name} is {value_s:g} s; it must be more than 0 and at most {limit_s:g} s",
            field=wanted.name_of(name),
        )
    return value_s


def _check_choices(wanted: Wanted, card: ModelCard) -> None:
    most = max_choices(card)
    if not 1 <= wanted.n <= most:
        raise InvalidRequest(
            f"n is {wanted.n}; model {card.model} makes 1 to {most} choices of one request",
            field=wanted.name_of("n"),
        )


def max_choices(card: ModelCard) -> int:
    return min(MAX_CHOICES, card.max_slots)


def _check_numbers(wanted: Wanted, card: ModelCard) -> None:
    parameters = wanted.parameters
    if parameters.HasField("max_tokens") and parameters.max_tokens < 1:
        raise InvalidRequest(
            "max_tokens is 0; it must be at least 1", field=wanted.name_of("max_tokens")
        )
    for each in PARAMETERS.values():
        if (value := _set_value(parameters, each)) is None:
            continue
        field = wanted.name_of(each.name)
        if not each.allows(value):
            raise InvalidRequest(
                f"{each.name} is {value:g}; it must be in {each.range}", field=field
            )
        if value != each.neutral and not _applies(card, each):
            raise Unsupported(
                f"the engine of model {card.model} does not support {each.name}", field=field
            )
    for token_id, bias in parameters.logit_bias.items():
        if not -100 <= bias <= 100:
            raise InvalidRequest(
                f"logit_bias of token {token_id} is {bias:g}; it must be in [-100, 100]",
                field=wanted.name_of("logit_bias"),
            )


def _check_logprobs(wanted: Wanted, card: ModelCard) -> None:
    parameters = wanted.parameters
    for name in _LOGPROBS:
        if not parameters.HasField(name):
            continue
        field = wanted.name_of(name)
        if not card.capabilities.logprobs:
            raise Unsupported(f"the engine of model {card.model} tells no {name}", field=field)
        if (count := getattr(parameters, name)) > MAX_LOGPROBS:
            raise InvalidRequest(
                f"{field} is {count}; it must be in [0, {MAX_LOGPROBS}]", field=field
            )


def _check_texts(wanted: Wanted) -> None:
    stops, words = wanted.parameters.stop, wanted.parameters.bad_words
    name = wanted.name_of("stop")
    _check_lengths(stops, MAX_STOP_STRINGS, name, "stop string")
    if (total := sum(map(len, stops))) > MAX_STOP_CHARACTERS_IN_ALL:
        raise InvalidRequest(
            f"{name} has {total} characters in all; it may have {MAX_STOP_CHARACTERS_IN_ALL}",
            field=name,
        )
    _check_lengths(words, MAX_BAD_WORDS, wanted.name_of("bad_words"), "bad word")
    salt = wanted.cache_salt
    if salt is not None and not 1 <= len(salt) <= MAX_SALT_CHARACTERS:
        raise InvalidRequest(
            f"cache_salt has {len(salt)} characters; it must have 1 to {MAX_SALT_CHARACTERS}",
            field=wanted.name_of("cache_salt"),
        )


def _check_lengths(texts: Sequence[str], most: int, name: str, called: str) -> None:
    _check_count(len(texts), most, name)
    for i, text in enumerate(texts):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InvalidRequest(
                f"{called} {i} has {len(text)} characters; it must have 1 to {MAX_STOP_CHARACTERS}",
                field=f"{name}[{i}]",
            )


def _check_token_ids(wanted: Wanted, card: ModelCard) -> None:
    parameters = wanted.parameters
    _check_count(
        len(parameters.stop_token_ids), MAX_STOP_TOKEN_IDS, wanted.name_of("stop_token_ids")
    )
    _check_count(len(parameters.logit_bias), MAX_LOGIT_BIASES, wanted.name_of("logit_bias"))
    _check_count(
        len(parameters.allowed_token_ids),
        MAX_ALLOWED_TOKEN_IDS,
        wanted.name_of("allowed_token_ids"),
    )
    groups = [
        ("stop_token_ids", parameters.stop_token_ids),
        ("logit_bias", parameters.logit_bias),
        ("allowed_token_ids", parameters.allowed_token_ids),
    ]
    for name, token_ids in groups:
        _check_vocabulary(max(token_ids, default=0), card, wanted.name_of(name))
    if isinstance(wanted.prompt, TokenIds):
        _check_vocabulary(max(wanted.prompt.token_ids, default=0), card, wanted.prompt.field)


def _check_masks(wanted: Wanted, card: ModelCard) -> None:
    """What the engine masks tokens for, beside a structure, and what it keeps apart."""
    parameters = wanted.parameters
    for name in ("min_tokens", "bad_words", "allowed_token_ids"):
        if getattr(parameters, name) and not card.capabilities.token_masks:
            field = wanted.name_of(name)
            raise Unsupported(f"the engine of model {card.model} has no {name}", field=field)
    if wanted.cache_salt and not card.capabilities.cache_salt:
        raise Unsupported(
            f"the engine of model {card.model} keeps no caches apart by a salt",
            field=wanted.name_of("cache_salt"),
        )
    if parameters.HasField("max_tokens") and parameters.min_tokens > parameters.max_tokens:
        field = wanted.name_of("min_tokens")
        raise InvalidRequest(
            f"{field} is {parameters.min_tokens}; it may be at most"
            f" {wanted.name_of('max_tokens')}, which is {parameters.max_tokens}",
            field=field,
        )


def _check_vocabulary(highest: int, card: ModelCard, name: str) -> None:
    if highest >= card.vocabulary_size:
        raise InvalidRequest(
            f"{name} has token id {highest}; model {card.model} has ids 0 to"
            f" {card.vocabulary_size - 1}",
            field=name,
        )


def _check_count(count: int, most: int, name: str) -> None:
    if count > most:
        raise InvalidRequest(f"{name} has {count} entries; it may have {most}", field=name)


def _sampling(parameters: SamplingParameters, card: ModelCard, most_tokens: int) -> Sampling:
    numbers: dict[str, Any] = {
        name: _number(each, parameters, card) for name, each in PARAMETERS.items()
    }
    told = {name: getattr(parameters, name) for name in _LOGPROBS if parameters.HasField(name)}
    # Why: logits divided by next to nothing overflow; what is meant is greedy.
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
        **told,
    )


def _number(each: SamplingParameter, parameters: SamplingParameters, card: ModelCard) -> float:
    """Return the caller's value, else the model's own, else the neutral one."""
    value = _set_value(parameters, each)
    if value is None and each.model_default and _applies(card, each):
        value = _set_value(card.defaults, each)
    return each.neutral if value is None else value


def _set_value(
    message: SamplingParameters | SamplingDefaults, each: SamplingParameter
) -> float | None:
    if not message.HasField(each.name):  # type: ignore[arg-type]
        return None
    value: float = getattr(message, each.name)
    return value


def _applies(card: ModelCard, each: SamplingParameter) -> bool:
    return each.everywhere or each.name in card.capabilities.sampling
