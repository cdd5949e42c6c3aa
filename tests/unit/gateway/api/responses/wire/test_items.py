"""Items of a response's input: as they are sent, as they are stored, and as messages of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.api.responses.wire.items import as_messages, as_past, read_items, sealed

Json = dict[str, Any]


def read(value: object, unknown: UnknownFields | None = None) -> list[Json]:
    return read_items(value, "input", unknown or UnknownFields())


def messages(*items: Json) -> list[Json]:
    return as_messages(read(list(items)))


def call(number: int) -> Json:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}


def result(number: int, output: object = "9") -> Json:
    return {"type": "function_call_output", "call_id": f"c{number}", "output": output}


def called(*numbers: int) -> list[Json]:
    function = {"name": "f", "arguments": "{}"}
    return [{"id": f"c{number}", "type": "function", "function": function} for number in numbers]


USER: Json = {"role": "user", "content": "Hello"}
ANSWER: Json = {"role": "assistant", "content": "Hi"}
THOUGHT: Json = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "It is 9."}],
}


def test_a_text_is_a_users_message() -> None:
    (item,) = read("Hello")
    assert item["id"].startswith("msg_")
    assert {name: item[name] for name in ("type", "role", "status", "content")} == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hello"}],
    }


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([USER], [USER]),
        ([USER | {"type": "message"}, ANSWER], [USER, ANSWER]),
        (
            [USER, THOUGHT, ANSWER, call(1), call(2), result(1), result(2)],
            [
                USER,
                {**ANSWER, "reasoning_content": "It is 9.", "tool_calls": called(1, 2)},
                {"role": "tool", "tool_call_id": "c1", "content": "9"},
                {"role": "tool", "tool_call_id": "c2", "content": "9"},
            ],
        ),
        (
            [USER, call(1), result(1), ANSWER],
            [
                USER,
                {"role": "assistant", "content": None, "tool_calls": called(1)},
                {"role": "tool", "tool_call_id": "c1", "content": "9"},
                ANSWER,
            ],
        ),
        ([ANSWER, ANSWER], [ANSWER, ANSWER]),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
            [{"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]}],
        ),
        (
            [result(1, [{"type": "input_text", "text": "9"}])],
            [{"role": "tool", "tool_call_id": "c1", "content": "9"}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
            [{"role": "assistant", "content": "No."}],
        ),
        (
            [{"type": "reasoning", "summary": [], "encrypted_content": sealed("It is 9.")}, ANSWER],
            [{**ANSWER, "reasoning_content": "It is 9."}],
        ),
        (
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "9"}]}, ANSWER],
            [{**ANSWER, "reasoning_content": "9"}],
        ),
    ],
)
def test_one_turn_of_the_model_is_one_message(items: list[Json], expected: list[Json]) -> None:
    assert messages(*items) == expected


def test_an_item_keeps_its_id_and_what_was_made_here_can_be_sent_back() -> None:
    made = [
        {"id": "rs_1", "status": "completed", **THOUGHT},
        {"id": "fc_1", "status": "completed", **call(1)},
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
        },
    ]
    assert [item["id"] for item in read(made)] == ["rs_1", "fc_1", "msg_1"]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("Hello", "input[0]"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "king", "content": "Hello"}, "input[0].role"),
        ({"role": "user", "content": [{"text": "Hello"}]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0]"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input[0].arguments"),
        ({"type": "function_call_output", "output": "9"}, "input[0].call_id"),
        ({"type": "reasoning", "summary": ["x"]}, "input[0].summary"),
        (
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
            "input[0].encrypted_content",
        ),
        ({"role": "user", "content": "Hello", "foo": 1}, "input[0].foo"),
        ({"role": "user", "content": "Hello", "id": 7}, "input[0].id"),
        ({"role": ["user"], "content": "Hello"}, "input[0].role"),
    ],
)
def test_a_malformed_item_is_refused_by_its_place(item: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read([item])
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": "web_search_call", "id": "ws_1"}, "input[0].type"),
        ({"type": ["message"]}, "input[0].type"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[0].content[0].type"),
        ({**call(1), "namespace": "crm"}, "input[0].namespace"),
    ],
)
def test_what_is_not_served_is_refused_by_name(item: object, field: str) -> None:
    with pytest.raises(Unsupported) as refused:
        read([item])
    assert refused.value.field == field


def test_unknown_members_are_noted_where_they_are_not_refused() -> None:
    unknown = UnknownFields(strict=False)
    read([{"role": "user", "content": "Hello", "foo": 1, "phase": "commentary"}], unknown)
    assert (unknown.header, unknown.ignored) == ("input[].foo", {"phase"})


@pytest.mark.parametrize("item", [call(1), result(1)])
def test_a_call_and_its_output_have_an_id(item: Json) -> None:
    with pytest.raises(InvalidRequest, match="call_id is empty") as refused:
        read([item | {"call_id": ""}])
    assert refused.value.field == "input[0].call_id"


def test_what_is_past_has_no_logprobs() -> None:
    part = {"type": "output_text", "text": "a", "annotations": []}
    message: Json = {"type": "message", "content": [part | {"logprobs": [{"logprob": -1.0}]}]}
    without = {"type": "message", "content": [part | {"logprobs": []}]}
    assert as_past([message, call(1)]) == [without, call(1)]
    assert message["content"][0]["logprobs"]
