"""OpenAI's bodies: what is read, what is refused and by which name; never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.errors import InvalidRequest, Unsupported
from headrace.v1.common_pb2 import Priority
from headrace_gateway.api.bodies.convert import completion_requests
from headrace_gateway.api.bodies.generation import CompletionBody, parse
from headrace_gateway.request.generation_request import Conversation, Text, TokenIds
from helpers.openai_bodies import CALL, HELLO, MB, chat, completing, completion, requested

NO_JSON = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"17",
    b"\xff\xfe",
    b'{"model": "\xff"}',
    b'{"model": "\\ud800"}',
    b'{"model": "a\nb"}',
    b'{"model": NaN}',
    b'{"temperature": Infinity}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"seed": ' + b"9" * 10_000 + b"}",
    b"\xef\xbb\xbf\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("data", NO_JSON)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body is not"):
        requested(data)


def test_a_body_over_the_limit_is_refused_with_the_numbers() -> None:
    with pytest.raises(InvalidRequest, match="has 1048577 bytes; it may have 1048576"):
        requested(b" " * (MB + 1))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"foo": 1}, "foo"),
    ({"model": 1}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"content": "Hello"}]}, "messages[0].role"),
    ({"messages": [{"role": 1, "content": "Hello"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "", "foo": 1}]}, "messages[0].foo"),
    ({"messages": [{"role": "user", "content": "", "name": 1}]}, "messages[0].name"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2**32}, "max_tokens"),
    ({"max_tokens": 10**100}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_completion_tokens": "5"}, "max_completion_tokens"),
    ({"n": 1.5}, "n"),
    ({"n": 1e300}, "n"),
    ({"stop_token_ids": [3.5]}, "stop_token_ids[0]"),
    ({"n": 10**30}, "n"),
    ({"top_k": -2}, "top_k"),
    ({"seed": 2**64}, "seed"),
    ({"seed": -(2**63) - 1}, "seed"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"foo": 1}}, "stream_options.foo"),
    ({"stop": 1}, "stop"),
    ({"stop": [1]}, "stop[0]"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids[0]"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"²": 1}}, "logit_bias"),
    ({"logit_bias": {"1": "x"}}, "logit_bias.1"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(10_001)}}, "logit_bias"),
    ({"service_tier": "gold"}, "service_tier"),
    ({"user": 1}, "user"),
]


@pytest.mark.parametrize(("fields", "name"), REFUSED)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        requested(chat(**fields))
    assert refused.value.field == name


def test_a_missing_field_is_refused_by_its_name() -> None:
    body = json.loads(chat())
    del body["messages"]
    with pytest.raises(InvalidRequest, match="messages: is missing") as refused:
        requested(json.dumps(body).encode())
    assert refused.value.field == "messages"


def test_an_unknown_field_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="unknown field 'foo'"):
        requested(chat(foo=1))


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "perhaps"},
        "tool_choice",
    ),
    ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"functions": [{}]}, "functions"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"use_beam_search": 0}, "use_beam_search"),
    ({"audio": {"voice": "ash", "format": "wav"}}, "audio"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"chat_template": "{{ messages }}"}, "chat_template"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content",
    ),
]


@pytest.mark.parametrize(("fields", "name"), UNSUPPORTED)
def test_a_known_field_that_is_not_served_is_refused_as_that(
    fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(Unsupported) as refused:
        requested(chat(**fields))
    assert refused.value.field == name


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": None, "tool_choice": "none", "response_format": {"type": "text"}, "store": True},
        {"tools": [], "tool_choice": "none", "logprobs": False, "top_logprobs": None},
        {"user": "ada", "metadata": {"a": [1]}, "parallel_tool_calls": None},
        {"prediction": {"type": "content", "content": "x"}, "spaces_between_special_tokens": False},
        {"modalities": ["text"], "prediction": None, "temperature": None, "stop": None, "n": None},
        {"safety_identifier": "x", "prompt_cache_key": "y", "use_beam_search": False},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream": False, "stream_options": None, "skip_special_tokens": True},
    ],
)
def test_fields_that_mean_nothing_here_are_accepted(fields: dict[str, Any]) -> None:
    assert requested(chat(**fields)).model == "valley"


def test_whole_numbers_may_be_written_with_a_point() -> None:
    """JSON has one kind of number, and Gson, Lua and R write 1 as 1.0."""
    whole = {"max_tokens": 5, "n": 2, "top_k": 40, "seed": -3, "min_tokens": 1, "priority": -1}
    pointed = {name: float(value) for name, value in whole.items()}
    asked = requested(chat(**pointed, stop_token_ids=[7.0, 8]))
    assert asked == requested(chat(**whole, stop_token_ids=[7, 8]))


def test_parameters_are_carried_over() -> None:
    asked = requested(
        chat(
            temperature=0,
            top_p=0.5,
            top_k=-1,
            min_p=0.25,
            repetition_penalty=1.5,
            presence_penalty=1,
            frequency_penalty=-1,
            logit_bias={"5": -100},
            stop="END",
            stop_token_ids=[7],
            ignore_eos=True,
            max_tokens=9,
            seed=-1,
            n=2,
        )
    )
    told = asked.parameters
    assert (told.temperature, told.top_p, told.top_k, told.min_p) == (0, 0.5, 0, 0.25)
    assert (told.repetition_penalty, told.presence_penalty, told.frequency_penalty) == (1.5, 1, -1)
    assert (dict(told.logit_bias), list(told.stop)) == ({5: -100}, ["END"])
    assert (list(told.stop_token_ids), told.ignore_eos, told.max_tokens) == ([7], True, 9)
    assert (asked.seed, asked.n, asked.request_id) == (2**64 - 1, 2, "id-1")


def test_unset_fields_stay_unset() -> None:
    asked = requested(chat())
    assert asked.parameters.ListFields() == []
    assert (asked.seed, asked.n) == (None, 1)


@pytest.mark.parametrize(
    ("tier", "priority"),
    [
        (None, Priority.PRIORITY_UNSPECIFIED),
        ("auto", Priority.PRIORITY_UNSPECIFIED),
        ("default", Priority.PRIORITY_STANDARD),
        ("flex", Priority.PRIORITY_BULK),
        ("priority", Priority.PRIORITY_INTERACTIVE),
    ],
)
def test_service_tiers_are_priorities(tier: str | None, priority: Priority.ValueType) -> None:
    assert requested(chat(service_tier=tier)).priority == priority


def test_the_newer_name_of_max_tokens_counts_and_is_named_in_refusals() -> None:
    asked = requested(chat(max_tokens=5, max_completion_tokens=7))
    assert asked.parameters.max_tokens == 7
    assert asked.name_of("max_tokens") == "max_completion_tokens"


def test_text_parts_stay_apart_for_templates_that_read_them_so() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    prompt = requested(chat(messages=[{"role": "user", "content": parts}])).prompt
    assert prompt == Conversation([{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hello", Text("Hello")),
        ("", Text("")),
        (["Hello"], Text("Hello")),
        ([1, 2], TokenIds([1, 2], "prompt")),
        ([[1, 2]], TokenIds([1, 2], "prompt")),
        ([], Text("")),
    ],
)
def test_a_completions_prompt_is_a_text_or_token_ids_alone_or_in_a_list(
    prompt: Any, expected: Text | TokenIds
) -> None:
    assert completing(completion(prompt=prompt)).prompt == expected


@pytest.mark.parametrize(
    "prompt",
    [None, 1, {}, [1.5], [True], [-1], [2**32], [1, "a"], [None], ["a", 1], ["a", [1]], [["a"]]],
)
def test_a_completions_prompt_of_another_type_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completing(completion(prompt=prompt))
    assert refused.value.field == "prompt"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"stream": True, "prompt_logprobs": 0}, "prompt_logprobs"),
    ],
)
def test_what_completions_do_not_serve_is_refused_as_that(
    fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(Unsupported) as refused:
        completing(completion(**fields))
    assert refused.value.field == name


def test_each_of_several_prompts_is_a_request_that_names_its_place() -> None:
    data = completion(prompt=["a", "", "c"], n=2)
    texts = completion_requests(parse(CompletionBody, data, max_bytes=MB), CALL)
    assert [each.prompt for each in texts] == [
        Text("a", "prompt[0]"),
        Text("", "prompt[1]"),
        Text("c", "prompt[2]"),
    ]
    assert {(each.n, each.request_id) for each in texts} == {(2, CALL.request_id)}
    data = completion(prompt=[[1, 2], [3]])
    ids = completion_requests(parse(CompletionBody, data, max_bytes=MB), CALL)
    assert [each.prompt for each in ids] == [
        TokenIds([1, 2], "prompt[0]"),
        TokenIds([3], "prompt[1]"),
    ]


def test_completions_have_openais_default_of_sixteen_tokens() -> None:
    assert completing(completion()).parameters.max_tokens == 16
    assert completing(completion(n=2, best_of=2, echo=False, suffix=None)).n == 2
