"""What a caller may request: ranges, defaults, and the room in the context."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from headrace.auth.caller import Caller
from headrace.errors import ContextLengthExceeded, HeadraceError, InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard, SamplingDefaults
from headrace.v1.common_pb2 import Priority, SamplingParameters
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.fitting import cut_to_fit
from headrace_gateway.checks.validation import check, times, valid_request
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    Text,
    TokenIds,
)

CARD = ModelCard(
    model="valley",
    context_tokens=100,
    vocabulary_size=50,
    max_slots=8,
    capabilities=Capabilities(token_masks=True),
)
LIMITS = GatewaySettings(max_timeout_s=60, max_patience_s=10)


def requested(**changes: Any) -> GenerationRequest:
    plain = GenerationRequest(
        "r-1",
        "valley",
        Text("hello"),
        SamplingParameters(),
        priority=Priority.PRIORITY_BULK,
        caller=Caller(),
    )
    return dataclasses.replace(plain, **changes)


def asking(**parameters: Any) -> GenerationRequest:
    return requested(parameters=SamplingParameters(**parameters))


def valid(
    asked: GenerationRequest, prompt_tokens: int = 10, card: ModelCard = CARD
) -> ValidRequest:
    check(asked, card, LIMITS)
    return valid_request(asked, card, LIMITS, list(range(prompt_tokens)), draw_seed=lambda: 77)


REFUSED: list[tuple[GenerationRequest, str]] = [
    (asking(temperature=-0.1), "temperature"),
    (asking(temperature=2.1), "temperature"),
    (asking(temperature=math.nan), "temperature"),
    (asking(temperature=math.inf), "temperature"),
    (asking(top_p=0.0), "top_p"),
    (asking(top_p=1.1), "top_p"),
    (asking(min_p=-0.1), "min_p"),
    (asking(min_p=1.1), "min_p"),
    (asking(typical_p=0.0), "typical_p"),
    (asking(typical_p=1.1), "typical_p"),
    (asking(repetition_penalty=0.0), "repetition_penalty"),
    (asking(repetition_penalty=10.5), "repetition_penalty"),
    (asking(presence_penalty=-2.1), "presence_penalty"),
    (asking(frequency_penalty=2.1), "frequency_penalty"),
    (asking(frequency_penalty=math.nan), "frequency_penalty"),
    (asking(max_tokens=0), "max_tokens"),
    (asking(logit_bias={1: 100.5}), "logit_bias"),
    (asking(logit_bias={1: math.nan}), "logit_bias"),
    (asking(logit_bias={50: 1.0}), "logit_bias"),
    (asking(stop=[""]), "stop[0]"),
    (asking(stop=["ok", "x" * 257]), "stop[1]"),
    (asking(stop=["x"] * 1025), "stop"),
    (asking(stop_token_ids=[50]), "stop_token_ids"),
    (asking(stop_token_ids=[1] * 65), "stop_token_ids"),
    (requested(n=0), "n"),
    (requested(n=-1), "n"),
    (requested(n=9), "n"),
    (requested(priority=99), "priority"),
    (requested(timeout_s=0.0), "timeout"),
    (requested(timeout_s=61.0), "timeout"),
    (requested(timeout_s=math.nan), "timeout"),
    (requested(patience_s=-1.0), "patience"),
    (requested(patience_s=11.0), "patience"),
    (requested(request_id=""), "request_id"),
    (requested(request_id="a" * 65), "request_id"),
    (requested(request_id="a.b"), "request_id"),
    (requested(request_id="a\n"), "request_id"),
    (requested(prompt=Conversation([])), "messages"),
    (requested(prompt=Conversation([{"role": "", "content": ""}])), "messages[0].role"),
    (
        requested(
            prompt=Conversation(
                [{"role": "user", "content": ""}, {"role": "<|end|>", "content": ""}]
            )
        ),
        "messages[1].role",
    ),
    (requested(prompt=TokenIds([1, 50])), "prompt_token_ids"),
    (requested(prompt=Text("x" * 6401)), "prompt"),
    (requested(prompt=TokenIds([1] * 100)), "prompt_token_ids"),
    (asking(max_tokens=91), "max_tokens"),
    (asking(stop=["x" * 256] * 65), "stop"),
    (asking(bad_words=["x"] * 129), "bad_words"),
    (asking(bad_words=["x", ""]), "bad_words[1]"),
    (asking(allowed_token_ids=[0, 50]), "allowed_token_ids"),
    (asking(min_tokens=8, max_tokens=7), "min_tokens"),
    (requested(cache_salt=""), "cache_salt"),
    (requested(cache_salt="x" * 257), "cache_salt"),
    (requested(truncate_tokens=0), "truncate_prompt_tokens"),
    (requested(truncate_tokens=100), "truncate_prompt_tokens"),
    (requested(truncate_tokens=-2), "truncate_prompt_tokens"),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_what_is_out_of_range_is_refused_by_the_name_of_its_field(
    asked: GenerationRequest, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        valid(asked)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "asked",
    [
        asking(temperature=0.0, top_p=1.0, min_p=0.0, presence_penalty=-2.0, frequency_penalty=2),
        asking(temperature=2.0, top_p=1e-6, min_p=1.0, repetition_penalty=10.0),
        asking(logit_bias={0: -100.0, 49: 100.0}, stop=["x" * 256] * 16, stop_token_ids=[49] * 64),
        asking(max_tokens=90),
        asking(max_tokens=1),
        requested(n=8),
        requested(timeout_s=60.0, patience_s=10.0, request_id="-_aZ09" * 10),
        requested(prompt=TokenIds([0, 49])),
        requested(prompt=Text("x" * 6400)),
    ],
)
def test_the_ends_of_every_range_are_in_it(asked: GenerationRequest) -> None:
    assert valid(asked).request_id == asked.request_id


def test_unset_parameters_are_neutral() -> None:
    request = valid(requested())
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.repetition_penalty) == (1, 1, 1)
    assert (sampling.top_k, sampling.min_p, sampling.ignore_eos) == (0, 0, False)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0, 0)
    assert (request.n, request.seed, request.priority) == (1, 77, Priority.PRIORITY_BULK)


def test_the_models_own_defaults_come_before_neutral_and_after_the_caller() -> None:
    own = SamplingDefaults(
        temperature=0.5, top_p=0.25, top_k=20, min_p=0.125, repetition_penalty=1.5
    )
    card = ModelCard()
    card.CopyFrom(CARD)
    card.defaults.CopyFrom(own)
    told = valid(requested(), card=card).sampling
    assert (told.temperature, told.top_p, told.top_k, told.repetition_penalty) == (
        0.5,
        0.25,
        20,
        1.5,
    )
    assert told.min_p == 0.125
    said = valid(asking(temperature=0.0, top_k=0, min_p=0.0), card=card).sampling
    assert (said.temperature, said.top_k, said.top_p, said.min_p) == (0, 0, 0.25, 0)


def test_the_room_that_is_left_is_the_default_of_max_tokens() -> None:
    assert valid(requested(), prompt_tokens=60).sampling.max_tokens == 40
    assert valid(requested(), prompt_tokens=99).sampling.max_tokens == 1


def test_a_prompt_that_fills_the_context_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        ContextLengthExceeded, match=r"length is 100 tokens.*100 in your prompt"
    ) as refused:
        valid(requested(), prompt_tokens=100)
    assert refused.value.field == "prompt"


def test_prompt_and_output_together_beyond_the_context_are_refused_with_the_numbers() -> None:
    with pytest.raises(
        ContextLengthExceeded,
        match=r"length is 100 tokens.*101 tokens \(60 in your prompt, 41 in the",
    ):
        valid(asking(max_tokens=41), prompt_tokens=60)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        valid(requested(), prompt_tokens=0)


def test_a_temperature_that_would_overflow_is_greedy() -> None:
    assert valid(asking(temperature=1e-9)).sampling.temperature == 0


def test_more_than_the_vocabulary_is_all_of_it() -> None:
    assert valid(asking(top_k=2**32 - 1)).sampling.top_k == 50


def test_an_unset_priority_is_standard() -> None:
    request = valid(requested(priority=Priority.PRIORITY_UNSPECIFIED))
    assert request.priority == Priority.PRIORITY_STANDARD


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (requested(), (60, 10)),
        (requested(timeout_s=5.0), (5, 5)),
        (requested(patience_s=2.0), (60, 2)),
        (requested(time_remaining_s=3.0), (3, 3)),
        (requested(timeout_s=2.0, time_remaining_s=3.0), (2, 2)),
    ],
)
def test_times_are_the_shortest_that_bind(
    asked: GenerationRequest, expected: tuple[float, float]
) -> None:
    assert times(asked, LIMITS) == expected


@pytest.mark.parametrize(
    "asked",
    [asking(min_tokens=1), asking(bad_words=["x"]), asking(allowed_token_ids=[1])],
    ids=["min_tokens", "bad_words", "allowed_token_ids"],
)
def test_masks_are_refused_where_the_engine_has_none(asked: GenerationRequest) -> None:
    plain = ModelCard(model="plain", max_slots=1, context_tokens=100, vocabulary_size=50)
    with pytest.raises(Unsupported, match="model plain does not support"):
        check(asked, plain, LIMITS)


def test_what_masks_the_output_goes_into_the_record() -> None:
    sampling = valid(asking(min_tokens=3, allowed_token_ids=[4, 5], max_tokens=9)).sampling
    assert (sampling.min_tokens, list(sampling.allowed_token_ids)) == (3, [4, 5])
    assert valid(asking(min_tokens=10_000)).sampling.min_tokens == 90


@pytest.mark.parametrize(
    ("truncate", "max_tokens", "kept"),
    [(None, None, 60), (70, None, 60), (10, None, 10), (1, None, 1), (-1, None, 60), (-1, 50, 50)],
)
def test_a_prompt_keeps_its_last_tokens_where_it_is_to_be_cut(
    truncate: int | None, max_tokens: int | None, kept: int
) -> None:
    asked = dataclasses.replace(asking(max_tokens=max_tokens), truncate_tokens=truncate)
    assert cut_to_fit(asked, CARD, list(range(60))) == list(range(60 - kept, 60))


def test_token_ids_beyond_the_context_are_taken_where_they_are_to_be_cut() -> None:
    check(requested(prompt=TokenIds([1] * 500), truncate_tokens=-1), CARD, LIMITS)


def test_fields_are_named_as_the_caller_wrote_them() -> None:
    asked = dataclasses.replace(
        asking(temperature=3.0), names={"temperature": "parameters.temperature"}
    )
    with pytest.raises(HeadraceError) as refused:
        valid(asked)
    assert refused.value.field == "parameters.temperature"


def test_a_parameter_that_the_engine_lacks_is_refused_by_name_unless_it_changes_nothing() -> None:
    with pytest.raises(Unsupported, match="the engine of model valley does not support typical_p"):
        valid(asking(typical_p=0.9))
    assert valid(asking(typical_p=1.0)).sampling.typical_p == 1.0
    card = ModelCard()
    card.CopyFrom(CARD)
    card.defaults.typical_p = 0.5
    assert valid(asking(), card=card).sampling.typical_p == 1.0, "nor is the model's default used"
    card.capabilities.sampling.append("typical_p")
    assert valid(asking(), card=card).sampling.typical_p == 0.5
    assert valid(asking(typical_p=0.25), card=card).sampling.typical_p == 0.25


def test_what_is_published_names_the_tenant_the_key_and_the_person_that_pay() -> None:
    found = valid(requested(caller=Caller("acme", key_id="k1", person="p1")))
    assert (found.tenant, found.key_id, found.person) == ("acme", "k1", "p1")
