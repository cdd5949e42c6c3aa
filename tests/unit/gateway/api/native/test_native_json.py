"""Native JSON bodies: strict, and refused by the path of the field."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, RequestError
from headrace.v1.common_pb2 import FinishReason, Priority, Usage
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace.v1.models_pb2 import TokenizeRequest
from headrace_gateway.api.native.convert import generate_request, tokenize_request
from headrace_gateway.api.native.messages import delta, finish
from headrace_gateway.api.native.proto_json import parse
from headrace_gateway.api.native.rest_service import as_json, delta_json
from headrace_gateway.base.calls import Call, trace_context
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.parsers.pieces import CallPiece
from headrace_gateway.request.generation_request import Conversation, Text, TokenIds

CALL = Call(Caller(), "made-here", 5.0, {"traceparent": "x"})


def read(body: Any) -> GenerateRequest:
    return parse(GenerateRequest, json.dumps(body).encode(), max_bytes=100_000)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"foo": 1}, "foo"),
        ({"parameters": {"foo": 1}}, "parameters.foo"),
        ({"messages": [{"role": "user", "foo": 1}]}, "messages[0].foo"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"parameters": {"temperature": True}}, "parameters.temperature"),
        ({"parameters": {"max_tokens": -1}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 1.5}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 2**32}}, "parameters.max_tokens"),
        ({"parameters": {"stop": "a"}}, "parameters"),
        ({"parameters": [1]}, "parameters"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": 1}]}, "messages.role"),
        ({"priority": "URGENT"}, "priority"),
        ({"priority": True}, "priority"),
        ({"timeout": 5}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"seed": 2**70}, "seed"),
        ({"n": "x"}, "n"),
        ({"prompt": 1}, "prompt"),
        ({"prompt_token_ids": [1, "x"]}, "prompt_token_ids"),
        ({"prompt_token_ids": [True]}, "prompt_token_ids"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert (refused.value.field or "").startswith(field)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"17", b"\xff", b"[" * 90_000, b'{"seed": NaN}', b"x" * 100_001]
)
def test_what_is_no_json_object_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body"):
        parse(GenerateRequest, data, max_bytes=100_000)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{}] * 200_000},
        {"parameters": {"stop": ["x"] * 500_000}},
        {"parameters": {"logit_bias": {str(i): 1 for i in range(200_000)}}},
        {f"field{i}": i for i in range(200_000)},
        {"prompt_token_ids": [*([1] * 3_000_000), -1]},
    ],
)
def test_a_million_mistakes_cost_no_more_than_one(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    begun = time.process_time()
    with pytest.raises(InvalidRequest):
        parse(GenerateRequest, data, max_bytes=16 * 1024 * 1024)
    assert time.process_time() - begun < 1.0


def test_both_spellings_of_names_are_read() -> None:
    assert read({"promptTokenIds": [1]}) == read({"prompt_token_ids": [1]})


def test_a_request_is_carried_over() -> None:
    asked = generate_request(
        read(
            {
                "model": "valley",
                "prompt": "Hello",
                "parameters": {"temperature": 0.5},
                "seed": "18446744073709551615",
                "n": 3,
                "priority": "PRIORITY_BULK",
                "timeout": "2.5s",
                "patience": "1s",
            }
        ),
        CALL,
    )
    assert (asked.model, asked.prompt, asked.parameters.temperature) == (
        "valley",
        Text("Hello"),
        0.5,
    )
    assert (asked.seed, asked.n, asked.priority) == (2**64 - 1, 3, Priority.PRIORITY_BULK)
    assert (asked.timeout_s, asked.patience_s, asked.time_remaining_s) == (2.5, 1, 5)
    assert asked.name_of("top_p") == "parameters.top_p"
    assert asked.trace_context == {"traceparent": "x"}


def test_a_callers_own_request_id_replaces_the_generated_one() -> None:
    own = generate_request(read({"prompt": "Hello", "request_id": "mine"}), CALL)
    assert own.request_id == "mine"
    assert generate_request(read({"prompt": "Hello"}), CALL).request_id == "made-here"


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "a"}, Text("a")),
        ({"prompt_token_ids": [1, 2]}, TokenIds([1, 2])),
        (
            {"messages": [{"role": "user", "content": "a", "name": "ada"}]},
            Conversation([{"role": "user", "content": "a", "name": "ada"}]),
        ),
    ],
)
def test_each_kind_of_prompt_is_read(body: dict[str, Any], prompt: object) -> None:
    assert generate_request(read(body), CALL).prompt == prompt


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "prompt_token_ids": [1]}, "prompt_token_ids"),
        ({"prompt": "a", "messages": [{"role": "user"}]}, "messages"),
    ],
)
def test_exactly_one_prompt_is_required(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match="exactly one") as refused:
        generate_request(read(body), CALL)
    assert refused.value.field == field


def test_a_text_to_tokenise_goes_by_its_own_name() -> None:
    request = parse(TokenizeRequest, b'{"text": "a"}', max_bytes=100)
    assert tokenize_request(request, CALL).prompt == Text("a", field="text")


@pytest.mark.parametrize(
    "said",
    [
        ChoiceDelta(0, 0, 'a"\n\u2028🌊', [1, 2]),
        ChoiceDelta(3, 7, "", []),
        ChoiceDelta(1, 2, "x", [9], finish_reason=FinishReason.FINISH_REASON_STOP),
        ChoiceDelta(
            0, 2, "", [9], calls=[CallPiece(0, "sky", "", "call_1"), CallPiece(0, None, "{}")]
        ),
    ],
)
def test_hand_written_deltas_are_the_json_of_the_message(said: ChoiceDelta) -> None:
    assert json_format.Parse(delta_json(said), StreamGenerateResponse()) == delta(said)


def test_the_end_of_a_stream_is_printed_with_its_zeros() -> None:
    event = json.loads(as_json(finish(Usage())))
    assert event == {"finish": {"usage": {"prompt_tokens": 0, "output_tokens": 0}}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([*GenerateRequest.DESCRIPTOR.fields_by_name, "other"])


def assert_readable(error: RequestError) -> None:
    assert 0 < len(error.message) < 400


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_json_is_either_read_or_refused(body: dict[str, Any]) -> None:
    try:
        generate_request(read(body), CALL)
    except RequestError as error:
        assert_readable(error)


def test_only_a_well_formed_trace_context_is_taken() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_context([("traceparent", parent), ("tracestate", "a=b"), ("x", "y")]) == {
        "traceparent": parent,
        "tracestate": "a=b",
    }
    assert trace_context([("traceparent", "x"), ("baggage", "a=b")]) == {}
    assert trace_context([("traceparent", parent), ("baggage", "a" * 2000)]) == {
        "traceparent": parent
    }
