"""What is to become vectors: checked, and cut into requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.auth.caller import Caller
from headrace.errors import ContextLengthExceeded, InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.inputs import (
    MAX_CALL_TOKENS,
    MAX_INPUTS,
    check_inputs,
    check_lengths,
    longest_input,
    prefixed,
    prompt_text,
    requests_for,
)
from headrace_gateway.request.generation import Input
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    Text,
    TokenIds,
    VectorRequest,
)

CARD = ModelCard(
    model="minilm",
    context_tokens=512,
    vocabulary_size=100,
    max_slots=256,
    vectors=VectorFacts(dimensions=8, prompts={"query": "query: "}, default_prompt="query"),
)


def requested(inputs: Sequence[AnyInput], **fields: Any) -> VectorRequest:
    names = {"inputs": "input", "truncate_tokens": "truncate_prompt_tokens"}
    return VectorRequest("r", "minilm", inputs, names=names, **{"caller": Caller()} | fields)


def texts(*each: str) -> list[AnyInput]:
    return [Text(text, f"input[{i}]") for i, text in enumerate(each)]


@given(st.lists(st.integers(1, 8192), min_size=1, max_size=300), st.sampled_from([4, 256]))
def test_a_call_is_cut_into_requests_that_are_it_again_when_joined(
    lengths: list[int], max_slots: int
) -> None:
    card = ModelCard(context_tokens=8192, max_slots=max_slots)
    inputs = [Input((number,) * length) for number, length in enumerate(lengths)]
    requests = requests_for(requested(texts("x")), card, GatewaySettings(), inputs)
    assert [each for request in requests for each in request.inputs] == inputs
    assert len({request.request_id for request in requests}) == len(requests)
    assert [request.is_part for request in requests] == [n > 0 for n in range(len(requests))]
    for request in requests:
        assert 1 <= request.n == len(request.inputs) <= min(32, max_slots)
        assert request.n == 1 or request.prompt_tokens <= 65_536


def test_a_small_call_is_one_request_under_its_own_name() -> None:
    (request,) = requests_for(
        requested(texts("x")), CARD, GatewaySettings(), [Input((1, 2)), Input((3,))]
    )
    assert (request.request_id, request.n, request.prompt_tokens) == ("r", 2, 3)


@pytest.mark.parametrize(
    ("inputs", "fields", "kind", "fact"),
    [
        ([], {}, InvalidRequest, "input has 0 entries"),
        (texts("x") * (MAX_INPUTS + 1), {}, InvalidRequest, "input has 2049 entries"),
        (texts("x", "x" * 40_000), {}, ContextLengthExceeded, r"input\[1\] has 40000 characters"),
        ([TokenIds([1, 100], "input")], {}, InvalidRequest, "token id 100, .* 100 token ids"),
        (texts("x"), {"truncate_tokens": 513}, InvalidRequest, "it must be 1 to 512"),
        (texts("x"), {"truncate_tokens": 0}, InvalidRequest, "truncate_prompt_tokens is 0"),
        (texts("x"), {"timeout_s": -1}, InvalidRequest, "timeout is -1 s"),
    ],
)
def test_what_needs_no_tokens_is_refused_without(
    inputs: list[AnyInput], fields: dict[str, Any], kind: type[InvalidRequest], fact: str
) -> None:
    with pytest.raises(kind, match=fact):
        check_inputs(inputs, requested(inputs, **fields), CARD, GatewaySettings())


def test_an_input_that_is_too_long_is_named_by_its_place() -> None:
    inputs = texts("a", "b")
    found = [Input((1,)), Input((1,) * 513)]
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\] has 513 tokens") as refused:
        check_lengths(inputs, requested(inputs), CARD, found)
    assert refused.value.field == "input[1]"
    # LiteLLM and others know by this sentence of OpenAI's that a text is too long.
    assert str(refused.value).startswith("This model's maximum context length is 512 tokens. ")
    with pytest.raises(InvalidRequest, match=r"input\[0\] has no tokens"):
        check_lengths(inputs[:1], requested(inputs), CARD, [Input(())])


def test_one_call_has_a_bound_of_tokens() -> None:
    count = MAX_CALL_TOKENS // 512 + 1
    inputs = texts(*["x"] * count)
    with pytest.raises(InvalidRequest, match=f"input has {count * 512} tokens in all"):
        check_lengths(inputs, requested(inputs), CARD, [Input((1,) * 512)] * count)


def test_the_whole_context_is_what_the_model_takes() -> None:
    assert longest_input(requested([], truncate_tokens=WHOLE_CONTEXT), CARD) == 512
    assert longest_input(requested([], truncate_tokens=7), CARD) == 7
    assert longest_input(requested([]), CARD) is None


def test_a_prompt_goes_before_texts_and_not_before_token_ids() -> None:
    ids = TokenIds([1], "input[1]")
    assert prefixed([Text("mill", "f"), ids], "query: ") == [Text("query: mill", "f"), ids]


def test_a_prompt_is_the_named_one_or_the_default_or_none() -> None:
    assert prompt_text(CARD, None, "prompt_name") == "query: "
    assert prompt_text(CARD, "query", "prompt_name") == "query: "
    assert prompt_text(CARD, "", "prompt_name") == ""
    assert prompt_text(ModelCard(), None, "prompt_name") == ""
    with pytest.raises(InvalidRequest, match="no prompt 'title'; it has: query"):
        prompt_text(CARD, "title", "prompt_name")


def test_every_request_of_a_call_names_the_tenant_the_key_and_the_person_that_pay() -> None:
    call = requested(texts("a", "b"), caller=Caller("acme", key_id="k1", person="p1"))
    inputs = [Input((1,) * 8192), Input((2,) * 8192)]
    found = requests_for(call, CARD, GatewaySettings(), inputs)
    assert {(each.tenant, each.key_id, each.person) for each in found} == {("acme", "k1", "p1")}
