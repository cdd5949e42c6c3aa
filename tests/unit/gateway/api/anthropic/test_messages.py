"""Anthropic's bodies become the conversations that chat templates take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, RequestError, Unsupported
from headrace.v1.common_pb2 import Priority
from headrace_gateway.api.anthropic.bodies import MessagesBody
from headrace_gateway.api.anthropic.convert import message_request
from headrace_gateway.api.bodies.generation import parse
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import Conversation, GenerationRequest

USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "Ulm"}}
CALL = {
    "id": "toolu_1",
    "type": "function",
    "function": {"name": "look", "arguments": {"at": "Ulm"}},
}
ON, OFF = ({"enable_thinking": value, "thinking": value} for value in (True, False))
LOW = {"reasoning_effort": "low"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}


def requested(*messages: Any, **fields: Any) -> GenerationRequest:
    body = {"model": "valley", "max_tokens": 9, "messages": list(messages), **fields}
    unknown = UnknownFields(strict=False)
    read = parse(MessagesBody, json.dumps(body).encode(), max_bytes=10**6, unknown=unknown)
    return message_request(read, Call(Caller("acme"), "abc", None, {}))


def turns(*messages: Any, **fields: Any) -> list[Any]:
    prompt = requested(*messages, **fields).prompt
    assert isinstance(prompt, Conversation)
    return list(prompt.messages)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def part(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", "Hi"),
        ([text("Hi")], "Hi"),
        ([text("a"), text("b")], [part("a"), part("b")]),
        ([], ""),
    ],
)
def test_a_system_prompt_is_the_first_message(content: Any, expected: Any) -> None:
    first, *_ = turns(user(text("x")), system=content)
    if content == []:
        assert first["role"] == "user"
    else:
        assert first == {"role": "system", "content": expected}


def test_consecutive_messages_of_a_role_are_one() -> None:
    assert turns(
        {"role": "user", "content": "a"}, user(text("b")), {"role": "assistant", "content": "c"}
    ) == [
        {"role": "user", "content": [part("a"), part("b")]},
        {"role": "assistant", "content": "c"},
    ]


def test_calls_and_their_results_are_messages_of_their_own() -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("a"), text("b")]},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "broken", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_1"},
    ]
    assert turns(
        user(text("Weather?")),
        {"role": "assistant", "content": [text("Let me look."), USE]},
        user(*results, text("And?")),
    ) == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "toolu_1", "name": "look", "content": "rain"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [part("a"), part("b")]},
        {
            "role": "tool",
            "tool_call_id": "toolu_1",
            "name": "look",
            "content": [part("Error:"), part("broken")],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "name": "look", "content": ""},
        {"role": "user", "content": "And?"},
    ]


def test_earlier_thinking_goes_to_the_template_and_redacted_thinking_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "It may rain.", "signature": "x"}
    said = [thought, {"type": "redacted_thinking", "data": "y"}, text("Rain.")]
    assert turns(user(text("a")), {"role": "assistant", "content": said}, user(text("b")))[1] == {
        "role": "assistant",
        "content": "Rain.",
        "reasoning_content": "It may rain.",
    }


def test_a_last_message_of_the_assistant_is_continued() -> None:
    prompt = requested(user(text("a")), {"role": "assistant", "content": "The"}).prompt
    assert isinstance(prompt, Conversation)
    assert (prompt.continues, prompt.opens_answer) == (True, False)
    with pytest.raises(InvalidRequest, match="has to be followed by their results"):
        requested(user(text("a")), {"role": "assistant", "content": [USE]})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", "", True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", "", False)),
        ({"type": "any"}, ("required", "", True)),
        ({"type": "tool", "name": "look"}, ("required", "look", True)),
        ({"type": "none"}, ("none", "", True)),
    ],
)
def test_a_choice_of_tools_is_the_one_of_chat(choice: Any, expected: tuple[Any, ...]) -> None:
    tools = requested(user(text("a")), tools=[TOOL], tool_choice=choice).tools
    assert (tools.choice, tools.only, tools.parallel) == expected


def test_examples_of_a_tool_are_part_of_its_schema() -> None:
    tool = TOOL | {"type": "custom", "input_examples": [{"at": "Ulm"}], "strict": True}
    (offered,) = requested(user(text("a")), tools=[tool]).tools.offered
    assert offered.schema == {"type": "object", "examples": [{"at": "Ulm"}]}
    assert offered.strict


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config"),
        ({"output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
    ],
)
def test_a_format_is_a_structure(fields: Any, field: str) -> None:
    request = requested(user(text("a")), **fields)
    assert request.parameters.structure.json_schema == "{}"
    assert request.name_of("structure").startswith(field)


def test_the_other_parameters_are_those_of_chat() -> None:
    request = requested(
        user(text("a")),
        stop_sequences=["x"],
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        service_tier="standard_only",
        stream=True,
    )
    parameters = request.parameters
    assert (list(parameters.stop), parameters.temperature, parameters.top_k) == (["x"], 0.5, 3)
    assert (parameters.max_tokens, request.stream) == (9, True)
    assert request.priority == Priority.PRIORITY_STANDARD


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ON),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ON | LOW),
        ({"output_config": {"effort": "low"}}, LOW),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, OFF),
    ],
)
def test_thinking_is_variables_of_the_template(fields: Any, expected: Any) -> None:
    assert requested(user(text("a")), **fields).reasoning.template_kwargs == expected


@pytest.mark.parametrize(
    ("message", "fields", "kind", "words"),
    [
        (user({"type": "image"}), {}, Unsupported, r"messages\[0\].content\[0\].type: is 'image'"),
        (user({"type": "text"}), {}, InvalidRequest, r"messages\[0\].content\[0\].text: is miss"),
        (user(USE), {}, InvalidRequest, r"messages\[0\].content\[0\].type: is tool_use; a mess"),
        (user("a"), {}, InvalidRequest, r"messages\[0\].content\[0\]"),
        (
            user({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}),
            {},
            Unsupported,
            r"messages\[0\].content\[0\].content\[0\].type: is 'image'",
        ),
        ({"role": "tool", "content": "a"}, {}, InvalidRequest, r"messages\[0\].role: 'tool' is n"),
        (user(text("a")), {"tool_choice": {"type": "any"}}, InvalidRequest, "tool_choice: is all"),
        (
            user(text("a")),
            {"tools": [TOOL], "tool_choice": {"type": "tool"}},
            InvalidRequest,
            "tool_choice.name: is there where the type is tool",
        ),
        (
            user(text("a")),
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            Unsupported,
            r"tools\[0\].type: is 'bash_20250124'",
        ),
        (user(text("a")), {"mcp_servers": [{}]}, Unsupported, "mcp_servers is not served"),
        (
            user(text("a")),
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            InvalidRequest,
            "are both set",
        ),
        (user(text("a")), {"thinking": {"type": "enabled"}}, InvalidRequest, "budget_tokens: is"),
    ],
)
def test_what_is_not_served_is_named(
    message: Any, fields: Any, kind: type[RequestError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        requested(message, **fields)
