"""Tools that are offered: what is refused, what the prompt has of them, what holds the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from headrace.auth.caller import Caller
from headrace.errors import HeadraceError, InvalidRequest, InvalidStructure, Unsupported
from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard
from headrace.v1.generation_pb2 import GenerateRequest
from headrace_gateway.api.bodies.convert import chat_request
from headrace_gateway.api.bodies.generation import ChatBody, parse
from headrace_gateway.api.native.convert import generate_request
from headrace_gateway.base.calls import Call
from headrace_gateway.checks.apply_tools import apply_tools
from headrace_gateway.request.generation_request import Conversation, GenerationRequest

CARD = ModelCard(
    model="valley", tool_parser="hermes_inline", capabilities=Capabilities(grammar=True)
)
FREE = ModelCard(model="free", tool_parser="hermes")
PARAMETERS = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
SKY = {"name": "sky", "description": "Looks up.", "parameters": PARAMETERS}
CALL = Call(Caller(), "id-1", None, {})


def function(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": SKY | changes}


def openai(**fields: Any) -> GenerationRequest:
    body = {"model": "valley", "messages": [{"role": "user", "content": "Hello"}]} | fields
    return chat_request(parse(ChatBody, json.dumps(body).encode(), max_bytes=1 << 20), CALL)


def native(**fields: Any) -> GenerationRequest:
    body = {"model": "valley", "messages": [{"role": "user", "content": "Hello"}]} | fields
    return generate_request(json_format.ParseDict(body, GenerateRequest()), CALL)


def shape(requested: GenerationRequest) -> dict[str, Any]:
    """What is to hold the output."""
    shaped: dict[str, Any] = json.loads(requested.parameters.structure.structural_tag)["format"]
    return shaped


def test_the_prompt_has_the_tools_and_the_model_is_free_to_call_them() -> None:
    requested = apply_tools(openai(tools=[function()]), CARD)
    assert isinstance(requested.prompt, Conversation)
    assert requested.prompt.tools == [{"type": "function", "function": SKY}]
    assert requested.tools.usable
    assert shape(requested)["type"] == "triggered_tags"


def test_calls_are_held_to_the_names_that_are_offered_whatever_was_called_before() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    for parallel in (True, None):
        asked = openai(messages=messages, tools=[function()], parallel_tool_calls=parallel)
        held = shape(apply_tools(asked, CARD))
        assert held["triggers"] == ["<tool_call>"]
        (tag,) = held["tags"]
        assert tag["begin"] == '<tool_call>{"name": "sky", "arguments": '
        assert tag["content"]["json_schema"] == {"type": "object", "additionalProperties": True}


def test_beside_a_response_format_the_output_is_calls_or_an_answer_in_it() -> None:
    for strict in (True, False):
        requested = apply_tools(openai(tools=[function(strict=strict)], guided_regex="a+"), CARD)
        calls, answer = shape(requested)["elements"]
        assert calls["type"] == "tags_with_separator"
        assert answer == {"type": "regex", "pattern": "a+"}
        assert requested.tools.usable


def test_a_required_call_goes_before_a_response_format() -> None:
    choices = ("required", {"type": "function", "function": {"name": "sky"}})
    for choice in choices:
        held = shape(
            apply_tools(openai(tools=[function()], tool_choice=choice, guided_regex="a+"), CARD)
        )
        assert held["type"] == "tags_with_separator"


def test_an_engine_that_follows_no_grammar_is_left_free() -> None:
    assert not apply_tools(openai(tools=[function()]), FREE).parameters.HasField("structure")


def test_a_choice_of_none_hides_them() -> None:
    requested = apply_tools(openai(tools=[function()], tool_choice="none"), CARD)
    assert isinstance(requested.prompt, Conversation)
    assert requested.prompt.tools == ()
    assert not requested.tools.usable


def test_required_holds_the_output_to_calls_of_any_tool() -> None:
    tools = [function(), function(name="time", parameters=None)]
    held = shape(apply_tools(openai(tools=tools, tool_choice="required"), CARD))
    assert held["type"] == "tags_with_separator"
    assert held["at_least_one"]
    assert not held["stop_after_first"]
    sky, time = held["tags"]
    assert sky["begin"] == '<tool_call>{"name": "sky", "arguments": '
    assert sky["content"]["json_schema"] == PARAMETERS
    assert time["content"]["json_schema"]["additionalProperties"] is False


def test_a_named_choice_holds_it_to_that_tool() -> None:
    tools = [function(), function(name="time")]
    choice = {"type": "function", "function": {"name": "time"}}
    requested = openai(tools=tools, tool_choice=choice, parallel_tool_calls=False)
    held = shape(apply_tools(requested, CARD))
    assert [tag["begin"] for tag in held["tags"]] == ['<tool_call>{"name": "time", "arguments": ']
    assert held["stop_after_first"]


def test_a_strict_tool_is_held_to_its_schema_once_the_model_begins_a_call() -> None:
    held = shape(apply_tools(openai(tools=[function(strict=True), function(name="b")]), CARD))
    assert held["type"] == "triggered_tags"
    strict, loose = (tag["content"]["json_schema"] for tag in held["tags"])
    assert strict == PARAMETERS
    assert loose == {"type": "object", "additionalProperties": True}


def test_a_forced_call_is_an_object_and_follows_its_schema_as_well_as_can_be() -> None:
    either = {"anyOf": [PARAMETERS, {"type": "string"}]}
    tools = [function(parameters=either), function(name="b", parameters=either, strict=True)]
    held = shape(apply_tools(openai(tools=tools, tool_choice="required"), CARD))
    loose, strict = (tag["content"] for tag in held["tags"])
    assert loose["json_schema"] == strict["json_schema"] == either | {"type": "object"}
    assert loose["best_effort"]
    assert "best_effort" not in strict


@pytest.mark.parametrize("kind", ["array", "string", ["null", "string"], 5])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_parameters_that_take_no_object_are_refused(kind: object, choice: str) -> None:
    with pytest.raises(InvalidRequest, match="type object") as refused:
        apply_tools(openai(tools=[function(parameters={"type": kind})], tool_choice=choice), CARD)
    assert refused.value.field == "tools[0]"
    for taken in ("object", "OBJECT", None, ["object", "null"]):
        apply_tools(openai(tools=[function(parameters={"type": taken})], tool_choice=choice), CARD)


def test_calls_are_written_as_the_model_writes_them() -> None:
    card = ModelCard(model="q", tool_parser="hermes", capabilities=Capabilities(grammar=True))
    held = shape(apply_tools(openai(tools=[function()], tool_choice="required"), card))
    assert held["tags"][0]["begin"].startswith('<tool_call>\n{"name"')
    assert held["tags"][0]["end"] == "}\n</tool_call>"


def test_openai_and_native_tools_mean_the_same() -> None:
    tool = {**SKY, "parameters": json.dumps(PARAMETERS), "strict": True}
    choice = {"mode": "TOOL_CHOICE_MODE_REQUIRED", "name": "sky"}
    theirs = native(tools=[tool], tool_choice=choice, parallel_tool_calls=False)
    ours = openai(
        tools=[function(strict=True)],
        tool_choice={"type": "function", "function": {"name": "sky"}},
        parallel_tool_calls=False,
    )
    assert theirs.tools == ours.tools


def test_earlier_calls_and_their_results_reach_the_template_as_objects() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "sky", "arguments": '{"a": 1}'}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "blue"}
    ours = openai(messages=[{"role": "assistant", "tool_calls": [call]}, result])
    theirs = native(
        messages=[
            {
                "role": "assistant",
                "tool_calls": [{"call_id": "c1", "name": "sky", "arguments": '{"a": 1}'}],
            },
            result,
        ]
    )
    for requested in (ours, theirs):
        assert isinstance(requested.prompt, Conversation)
        first, second = requested.prompt.messages
        assert first["content"] == ""
        assert first["tool_calls"][0]["function"] == {"name": "sky", "arguments": {"a": 1}}
        assert second == result


REFUSED: list[tuple[dict[str, Any], type[HeadraceError], str]] = [
    ({"tools": [{"type": "web_search"}]}, Unsupported, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, InvalidRequest, "tools[0].function"),
    ({"tools": [function(name="")]}, InvalidRequest, "tools[0]"),
    ({"tools": [function(name="a b")]}, InvalidRequest, "tools[0]"),
    ({"tools": [function(), function()]}, InvalidRequest, "tools[1]"),
    ({"tools": [function(more=1)]}, InvalidRequest, "tools[0].function.more"),
    ({"tools": [function(parameters=[])]}, InvalidRequest, "tools[0].function.parameters"),
    ({"tools": [function(name=f"f{i}") for i in range(129)]}, InvalidRequest, "tools"),
    ({"tool_choice": "required"}, InvalidRequest, "tool_choice"),
    (
        {
            "tools": [function()],
            "tool_choice": {"type": "function", "function": {"name": "other"}},
        },
        InvalidRequest,
        "tool_choice",
    ),
    ({"tools": [function()], "tool_choice": {"type": "allowed_tools"}}, Unsupported, "tool_choice"),
    (
        {"tools": [function()], "guided_regex": "(" * 70},
        InvalidStructure,
        "guided_regex",
    ),
    ({"messages": [{"role": "user"}]}, InvalidRequest, "messages[0].content"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
        InvalidRequest,
        "messages[0].tool_calls[0]",
    ),
]


@pytest.mark.parametrize(("fields", "error", "field"), REFUSED)
def test_what_cannot_be_offered_is_refused_by_its_name(
    fields: dict[str, Any], error: type[HeadraceError], field: str
) -> None:
    with pytest.raises(error) as refused:
        apply_tools(openai(**fields), CARD)
    assert refused.value.field == field


def test_tools_are_refused_for_a_model_without_tool_calling_or_a_required_tool_call() -> None:
    with pytest.raises(Unsupported, match="does not support tool calling"):
        apply_tools(openai(tools=[function()]), ModelCard(model="plain"))
    with pytest.raises(Unsupported, match="does not support a required tool call"):
        apply_tools(openai(tools=[function()], tool_choice="required"), FREE)
    assert not apply_tools(openai(tools=[function(strict=True)]), FREE).parameters.HasField(
        "structure"
    )
