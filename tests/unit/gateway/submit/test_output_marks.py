"""Within reasoning an output does not end, unless a call may begin there, which may end it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.auth.caller import Caller
from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard
from headrace.internal.v1.request_pb2 import Grammar, Rendering, Sampling
from headrace.v1.common_pb2 import SamplingParameters
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.request.generation_request import GenerationRequest, Text
from headrace_gateway.submit.output_marks import add_marks
from helpers.gateway_actors import valid_request
from helpers.tiny_tokenizers import bundle, byte_level

END_ID = 1


@pytest.mark.parametrize(("parser", "barred"), [("qwen3", [END_ID]), ("kimi_k2", [])])
def test_the_end_is_barred_where_no_call_is_within_reasoning(
    parser: str, barred: list[int]
) -> None:
    card = ModelCard(model="m", eos_token_ids=[END_ID], capabilities=Capabilities(token_masks=True))
    request = replace(
        valid_request("r"),
        card=card,
        sampling=Sampling(grammar=Grammar()),
        rendering=Rendering(reasoning_parser=parser),
    )
    served = ServedModel(card, Tokenizer(bundle(byte_level()), inline_characters=100))
    requested = GenerationRequest("r", "m", Text("a"), SamplingParameters(), caller=Caller())
    add_marks(request, requested, served)
    assert request.sampling.reasoning.end_ids
    assert list(request.sampling.reasoning.barred_ids) == barred
