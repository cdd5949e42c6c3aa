"""What callers write becomes the messages of the native API, and their answers come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.client.answers import AnswerBuilder, ToolCall, Usage
from headrace.client.messages import generation_request, make_request
from headrace.client.vectors import embed_request, rerank_request
from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import FINISH_REASON_STOP, PRIORITY_BULK
from headrace.v1.generation_pb2 import TOOL_CHOICE_MODE_REQUIRED, StreamGenerateResponse

OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
OWN_CALL = {"call_id": "c1", "name": "f", "arguments": {"a": 1}}


def test_messages_are_texts_pairs_or_dicts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = generation_request(
        ["Hello", ("system", "Be brief."), {"role": "user", "content": parts}], "m", {}
    )
    found = [(message.role, message.content) for message in request.messages]
    assert found == [("user", "Hello"), ("system", "Be brief."), ("user", "ab")]
    assert len(request.request_id) == 32
    assert request.request_id != generation_request("x", "m", {}).request_id


@pytest.mark.parametrize("call", [OPENAI_CALL, OWN_CALL])
@pytest.mark.parametrize("reasoning", ["reasoning", "reasoning_content"])
def test_an_assistants_message_has_its_calls_and_its_reasoning(
    call: dict[str, Any], reasoning: str
) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call], reasoning: "why"}
    (sent,) = generation_request([message], "m", {}).messages
    assert (sent.reasoning, sent.content) == ("why", "")
    assert (sent.tool_calls[0].call_id, sent.tool_calls[0].name) == ("c1", "f")
    assert json.loads(sent.tool_calls[0].arguments) == {"a": 1}


def test_options_are_fields_of_the_request() -> None:
    tool = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    request = generation_request(
        [("user", "x")],
        "m",
        {
            "temperature": 0.0,
            "seed": 0,
            "n": 2,
            "timeout_s": 1.5,
            "priority": "bulk",
            "tools": [tool, {"type": "function", "function": {"name": "g"}}],
            "tool_choice": "f",
            "json_schema": {"type": "object"},
            "chat_template_kwargs": {"enable_thinking": False},
            "request_id": "mine",
            "patience_s": None,
        },
    )
    assert request.parameters.HasField("temperature")
    assert (request.HasField("seed"), request.n, request.request_id) == (True, 2, "mine")
    assert (request.timeout.ToMilliseconds(), request.HasField("patience")) == (1500, False)
    assert request.priority == PRIORITY_BULK
    assert [(each.name, each.strict) for each in request.tools] == [("f", True), ("g", False)]
    assert (request.tool_choice.mode, request.tool_choice.name) == (TOOL_CHOICE_MODE_REQUIRED, "f")
    assert request.parameters.structure.json_schema == '{"type": "object"}'
    assert dict(request.chat_template_kwargs) == {"enable_thinking": False}


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"temperature": "hot"},
        {"priority": "urgent"},
        {"regex": "a", "json_object": True},
        {"bad_words": "END"},
        {"stop_token_ids": "12"},
        {"tools": "f"},
        {"priority": 5},
        {"priority": "unspecified"},
        {"prompt_token_ids": [1, 2]},
    ],
)
def test_an_option_that_cannot_be_read_is_an_invalid_request(options: Any) -> None:
    with pytest.raises(InvalidRequest):
        generation_request("x", "m", options)


def test_one_stop_is_a_list_of_one() -> None:
    assert list(generation_request("x", "m", {"stop": "END"}).parameters.stop) == ["END"]
    assert list(make_request("x", model="m", stop="END").parameters.stop) == ["END"]
    with pytest.raises(InvalidRequest):
        make_request("x", model="m", bad_words="END")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "options"),
    [([1, 2, 3], {}), (["a"], {"priority": "x"}), (["a"], {"timeout_s": "soon"})],
)
def test_a_call_for_vectors_that_cannot_be_read_is_an_invalid_request(
    inputs: Any, options: Any
) -> None:
    with pytest.raises(InvalidRequest):
        embed_request(inputs, "m", options)


def test_documents_are_a_list() -> None:
    with pytest.raises(InvalidRequest) as refused:
        rerank_request("q", "one text", "m", {})
    assert refused.value.field == "documents"


def test_a_part_that_is_not_text_names_its_message() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(InvalidRequest) as refused:
        generation_request(["x", image], "m", {})
    assert refused.value.field == "messages[1].content"


def test_one_text_or_many_are_embedded_with_options() -> None:
    assert [each.text for each in embed_request("a", "m", {}).inputs] == ["a"]
    request = embed_request(["a", [1, 2]], "m", {"dimensions": 2, "patience_s": 0.5})
    assert list(request.inputs[1].token_ids) == [1, 2]
    assert (request.dimensions, request.patience.ToMilliseconds()) == (2, 500)


def test_a_stream_adds_up_to_its_answer() -> None:
    builder = AnswerBuilder()
    events = [StreamGenerateResponse() for _ in range(4)]
    events[0].started.request_id, events[0].started.model = "r", "m"
    events[1].delta.reasoning, events[1].delta.text = "why ", "It "
    events[1].delta.tool_calls.add(index=0, call_id="c", name="f", arguments='{"a"')
    events[2].delta.text, events[2].delta.finish_reason = "is.", FINISH_REASON_STOP
    events[2].delta.tool_calls.add(index=0, arguments=": 1}")
    events[3].finish.usage.prompt_tokens, events[3].finish.usage.output_tokens = 3, 4
    pieces = [builder.take(event) for event in events]
    assert [piece.text for piece in pieces if piece is not None] == ["It ", "is."]
    answer = builder.answer
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("It is.", "why ", "stop")
    assert answer.tool_calls == (ToolCall("c", "f", '{"a": 1}'),)
    assert answer.tool_calls[0].parsed() == {"a": 1}
    assert (answer.usage, answer.usage.total_tokens) == (Usage(3, 4), 7)
    again = generation_request([answer.message, answer.tool_calls[0].result("2")], "m", {})
    assert (again.messages[0].reasoning, again.messages[0].tool_calls[0].name) == ("why ", "f")
    assert (again.messages[1].role, again.messages[1].tool_call_id) == ("tool", "c")
