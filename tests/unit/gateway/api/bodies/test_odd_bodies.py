"""Bodies as clients send them: packed, marked, with answers sent back as they came, half-filled."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage, ParsedChatCompletionMessage

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, RequestError, Unsupported
from headrace.v1.common_pb2 import Priority
from headrace_gateway.api.bodies.convert import chat_request, completion_requests
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody, parse
from headrace_gateway.api.bodies.json_objects import read_object
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import Conversation, GenerationRequest

KB = 1024
CALL = Call(Caller(), "id-1", None, {})
USER = {"role": "user", "content": "Hello"}
SKY = {"type": "function", "function": {"name": "sky"}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "sky", "arguments": "{}"}}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "valley", "messages": [USER]} | fields).encode()


def requested(data: bytes, unknown: UnknownFields | None = None) -> GenerationRequest:
    return chat_request(parse(ChatBody, data, max_bytes=64 * KB, unknown=unknown), CALL)


def turns(*messages: Any, unknown: UnknownFields | None = None) -> list[dict[str, Any]]:
    prompt = requested(body(messages=list(messages)), unknown).prompt
    assert isinstance(prompt, Conversation)
    return [dict(message) for message in prompt.messages]


OBJECT = b'{"model": "valley"}'


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + OBJECT,
        gzip.compress(OBJECT, mtime=0),
        zlib.compress(OBJECT),
        zlib.compress(OBJECT, 0),
        zlib.compress(OBJECT, 9),
        gzip.compress(b"\xef\xbb\xbf" + OBJECT, mtime=0),
    ],
)
def test_a_mark_before_the_text_or_packing_changes_nothing(data: bytes) -> None:
    assert read_object(data, max_bytes=KB) == {"model": "valley"}


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (gzip.compress(b'{"a": "' + b"x" * 50_000_000 + b'"}'), "more than 65536 bytes"),
        (zlib.compress(b"[" * 50_000_000), "more than 65536 bytes"),
        (gzip.compress(OBJECT, mtime=0)[:-9], "does not end where"),
        (gzip.compress(OBJECT, mtime=0) + b"{}", "does not end where"),
        (b"\x1f\x8b" + OBJECT, "cannot be read"),
        (b'{"a": "Hi \\ud83d"}', "half of a surrogate pair, as in"),
        (b'{"a": "\\ude00"}', "a text cut within an emoji"),
        (b"\x28\xb5\x2f\xfd" + OBJECT, "zstd; send it plain, or by gzip"),
        (gzip.compress(gzip.compress(OBJECT, mtime=0), mtime=0), "is not JSON"),
    ],
)
def test_what_cannot_be_unpacked_within_the_bound_is_refused(data: bytes, fact: str) -> None:
    with pytest.raises(InvalidRequest, match=fact):
        read_object(data, max_bytes=64 * KB)


ANSWERS = [
    ChatCompletionMessage(role="assistant", content="Hi"),
    ChatCompletionMessage(role="assistant", content="Hi", annotations=[]),
    ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "tool_calls": [CALLED], "refusal": None}
    ),
    ChatCompletionMessage.model_validate({"role": "assistant", "content": None, "tool_calls": []}),
    ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": "Hi", "reasoning_content": "Greet.", "tool_calls": None}
    ),
    ParsedChatCompletionMessage[None](role="assistant", content="Hi", parsed=None),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_an_answer_goes_back_as_the_client_has_it(answer: ChatCompletionMessage) -> None:
    dumps = (
        answer.model_dump(),
        answer.model_dump(exclude_none=True),
        answer.model_dump(exclude_unset=True),
    )
    for dump in dumps:
        first, second = turns(USER, dump)
        assert first == USER
        assert second["content"] == (answer.content or "")
        assert ("tool_calls" in second) == bool(answer.tool_calls)


def test_reasoning_goes_to_the_template_under_either_name() -> None:
    for name in ("reasoning", "reasoning_content"):
        (turn,) = turns({"role": "assistant", "content": "Hi", name: "Greet."})
        assert turn["reasoning_content"] == "Greet."


def test_the_refusal_of_a_model_is_the_text_of_its_message() -> None:
    declined = {"role": "assistant", "content": None, "refusal": "I cannot."}
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    assert turns(declined)[0]["content"] == "I cannot."
    assert turns(parts)[0]["content"] == [{"type": "text", "text": "I cannot."}]


def test_text_parts_of_responses_are_text() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    (turn,) = turns({"role": "user", "content": parts})
    assert turn["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_the_older_form_of_a_call_is_a_call() -> None:
    older = {"role": "assistant", "content": None, "function_call": CALLED["function"]}
    result = {"role": "function", "name": "sky", "content": "blue"}
    called, said = turns(older, result)
    assert called["tool_calls"][0]["function"] == {"name": "sky", "arguments": {}}
    assert said == result


@pytest.mark.parametrize("arguments", ["", None, "null", '{"a": ', "Ulm", "[1]", {"a": 1}])
def test_a_conversation_goes_on_whatever_a_model_wrote_as_arguments(arguments: Any) -> None:
    function = {"name": "sky", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    result = {"role": "tool", "tool_call_id": "c1", "content": None}
    called, said = turns({"role": "assistant", "tool_calls": [call]}, result)
    assert called["tool_calls"][0]["function"]["name"] == "sky"
    assert said["content"] == ""


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
    ({"messages": [USER, {"role": "User", "content": "x"}]}, "messages[1].role"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [{"role": "system", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "developer"}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "sky"}}}, "tool_choice"),
    ({"tools": [], "tool_choice": "auto"}, "tool_choice"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"tools": [SKY], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"tools": ["sky"]}, "tools[0]"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "foo": 1}}]},
        "tools[0].function.foo",
    ),
    ({"messages": [{"role": "assistant", "tool_calls": [{**CALLED, "type": "custom"}]}]}, ""),
    ({"messages": [{"role": "assistant", "tool_calls": [CALLED | {"foo": 1}]}]}, ""),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_object", "foo": 1}}, "response_format.foo"),
    ({"n": "two"}, "n"),
    ({"priority": 1.5}, "priority"),
    ({"priority": 1, "service_tier": "flex"}, "priority"),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
    ),
    (
        {
            "continue_final_message": True,
            "messages": [USER, {"role": "assistant", "tool_calls": [CALLED]}],
        },
        "continue_final_message",
    ),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]"),
    ({"bad_words": "x"}, "bad_words"),
    ({"min_tokens": False}, "min_tokens"),
    ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
]


@pytest.mark.parametrize(("fields", "name"), REFUSED)
def test_what_is_wrong_is_refused_by_its_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestError) as refused:
        requested(body(**fields))
    assert refused.value.field is not None
    assert (refused.value.field == name) or not name


def test_the_error_for_an_unknown_role_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="'narrator' is none of system, developer, user"):
        turns({"role": "narrator", "content": "x"})


def test_unknown_fields_are_ignored_and_named_where_they_are_not_refused() -> None:
    unknown = UnknownFields(strict=False)
    part = {"type": "text", "text": "Hello", "foo": 1, "cache_control": {"type": "ephemeral"}}
    data = body(
        messages=[
            {"role": "user", "content": [part], "id": "m1"},
            {"role": "assistant", "tool_calls": [CALLED | {"foo": 1}], "id": "m2"},
        ],
        tools=[{"type": "function", "function": {"name": "sky", "foo": 1}, "bar": 2}],
        stream=True,
        stream_options={"include_usage": True, "foo": 1},
        store=True,
        user="ada",
        safety_identifier=None,
        temprature=2,
    )
    asked = requested(data, unknown)
    assert isinstance(asked.prompt, Conversation)
    assert asked.prompt.messages[0]["content"] == [{"type": "text", "text": "Hello"}]
    assert set(unknown.named) == {
        "messages[].content[].foo",
        "messages[].id",
        "messages[].tool_calls[].foo",
        "tools[].bar",
        "tools[].function.foo",
        "stream_options.foo",
        "temprature",
    }
    assert list(unknown.labels()) == ["cache_control", "store", "user", "unknown"]


def test_the_list_of_unknown_fields_is_bounded_and_fit_for_a_header() -> None:
    unknown = UnknownFields(strict=False)
    requested(body(**{f"é\r\n: {i}" * 40: i for i in range(50)}), unknown)
    assert unknown.count == 50
    assert unknown.header.isascii()
    assert unknown.header.isprintable()
    assert unknown.header.endswith("and 34 more")
    assert len(unknown.header) < 8 * KB


def test_what_is_known_and_not_served_is_refused_where_unknown_fields_are_not() -> None:
    refused_ones: list[dict[str, Any]] = [
        {"web_search_options": {}},
        {"modalities": ["audio"]},
        {"functions": [SKY]},
    ]
    for fields in refused_ones:
        with pytest.raises(Unsupported) as refused:
            requested(body(**fields), UnknownFields(strict=False))
        assert refused.value.field in fields


@pytest.mark.parametrize(
    ("number", "priority"),
    [
        (None, Priority.PRIORITY_UNSPECIFIED),
        (0, Priority.PRIORITY_UNSPECIFIED),
        (-1, Priority.PRIORITY_INTERACTIVE),
        (-(2**40), Priority.PRIORITY_INTERACTIVE),
        (1, Priority.PRIORITY_BULK),
        (17, Priority.PRIORITY_BULK),
    ],
)
def test_of_numbered_priorities_the_lower_goes_first(
    number: int | None, priority: Priority.ValueType
) -> None:
    assert requested(body(priority=number)).priority == priority


def test_vllms_fields_are_carried_over() -> None:
    fields = {
        "min_tokens": 3,
        "bad_words": ["mill"],
        "allowed_token_ids": [4, 5],
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
        "request_id": "mine-1",
        "cache_salt": "s",
        "truncate_prompt_tokens": -1,
        "add_special_tokens": True,
        "stop": ["a"] * 40,
        "n": 100,
    }
    for asked in (
        requested(body(**fields)),
        *completion_requests(
            parse(
                CompletionBody,
                json.dumps({"model": "valley", "prompt": "Hello"} | fields).encode(),
                max_bytes=KB,
            ),
            CALL,
        ),
    ):
        told = asked.parameters
        assert (told.min_tokens, list(told.bad_words)) == (3, ["mill"])
        assert list(told.allowed_token_ids) == [4, 5]
        assert (told.keep_special_tokens, told.include_stop) == (True, True)
        assert (asked.request_id, asked.cache_salt, asked.truncate_tokens) == ("mine-1", "s", -1)
        assert (asked.adds_special_tokens, len(told.stop), asked.n) == (True, 40, 100)


@pytest.mark.parametrize(
    ("fields", "opens", "continues"),
    [
        ({}, True, False),
        ({"add_generation_prompt": False}, False, False),
        ({"continue_final_message": True}, False, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, False, True),
    ],
)
def test_a_conversation_opens_an_answer_unless_it_is_to_go_on_within_one(
    fields: dict[str, Any], opens: bool, continues: bool
) -> None:
    prompt = requested(body(**fields)).prompt
    assert isinstance(prompt, Conversation)
    assert (prompt.opens_answer, prompt.continues) == (opens, continues)
