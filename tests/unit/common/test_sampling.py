"""The one table of sampling parameters, held against all that follows from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import headrace.client.sampling
from headrace.internal.v1.model_card_pb2 import SamplingDefaults
from headrace.internal.v1.request_pb2 import Sampling
from headrace.sampling import PARAMETERS, names_in
from headrace.v1.common_pb2 import SamplingParameters
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody
from headrace_worker.engine.base.interface import SamplingParameters as EngineParameters
from helpers.client_sampling import module

NAMES = sorted(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_its_field_in_each_message_and_body(name: str) -> None:
    each = PARAMETERS[name]
    assert name in SamplingParameters.DESCRIPTOR.fields_by_name
    assert name in Sampling.DESCRIPTOR.fields_by_name
    assert (name in SamplingDefaults.DESCRIPTOR.fields_by_name) == each.model_default
    assert name in ChatBody.model_fields
    assert name in CompletionBody.model_fields
    assert getattr(EngineParameters(max_tokens=1), name) == each.neutral


@pytest.mark.parametrize("name", NAMES)
def test_the_neutral_value_is_in_range_and_what_is_beyond_is_not(name: str) -> None:
    each = PARAMETERS[name]
    assert each.allows(each.neutral)
    assert each.allows(each.high)
    assert each.allows(each.low) != each.above_low
    for beyond in (each.low - 1, each.high + 1, math.nan, math.inf, -math.inf):
        assert not each.allows(beyond)


def test_an_engine_has_its_own_names_and_lacks_what_it_has_none_for() -> None:
    assert names_in("transformers") == {name: name for name in NAMES}
    assert names_in("llama_cpp")["repetition_penalty"] == "repeat_penalty"
    lacking = [name for name in NAMES if name not in names_in("vllm")]
    assert lacking == [n for n in NAMES if PARAMETERS[n].engine_names.get("vllm", n) is None]


def test_the_keyword_arguments_of_the_client_are_made_of_the_table() -> None:
    text = Path(headrace.client.sampling.__file__).read_text()
    assert text == module(), "run make proto"
