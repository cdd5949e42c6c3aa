"""What JSON or UTF-8 cannot have in a model's call is text, or no call; it is no error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.internal.v1.request_pb2 import OfferedTool, Rendering
from headrace_gateway.parsers.pieces import CallPiece
from headrace_gateway.parsers.registry import parser_for
from headrace_gateway.parsers.values import kinds_of, property_schema

NUMBER = "9" * 4000
HEX = "0x" + "f" * 4000
SCHEMA = {"type": "object", "properties": {"n": {}, "t": {"type": "string"}}}


def content_and_calls(tools: str, text: str) -> tuple[str, list[tuple[str, Any]]]:
    offered = [OfferedTool(name="sky", parameters=json.dumps(SCHEMA))]
    parser = parser_for(Rendering(calls_tools=True, tool_parser=tools, tools=offered))
    assert parser is not None
    content, calls = "", list[list[str]]()
    for piece in [*parser.feed(text), *parser.flush()]:
        if isinstance(piece, str):
            content += piece
        elif isinstance(piece, CallPiece):
            calls += [[piece.name, ""]] if piece.name is not None else []
            calls[-1][1] += piece.arguments
    # As protobuf has it.
    "".join([content, *(part for call in calls for part in call)]).encode()
    return content, [(name, json.loads(arguments)) for name, arguments in calls]


NO_CALLS = [
    ("pythonic", "[sky(n=-1e999)]"),
    ("pythonic", f"[sky(n={HEX})]"),
    ("pythonic", "[sky(n=[1e999])]"),
    ("gemma", f"```tool_code\nsky(n={HEX})\n```"),
    ("gemma4", "<|tool_call>call:sky{n:" + "[" * 63 + "]" * 62 + "}<tool_call|>"),
    ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {"n": 1e999}, "name": "sky"}</tool_call>'),
    ("llama3_json", "<|python_tag|>sky.call(n=-1e999)"),
]


@pytest.mark.parametrize(("tools", "text"), NO_CALLS)
def test_a_call_that_cannot_be_sent_is_content(tools: str, text: str) -> None:
    assert content_and_calls(tools, text) == (text, [])


@pytest.mark.parametrize(
    "value", ["1e999", "-1e999", "[1e999]", '{"a": [-1e999]}', HEX, NUMBER * 2]
)
def test_a_value_that_json_cannot_have_is_its_text(value: str) -> None:
    xml = f"<tool_call><function=sky><parameter=n>{value}</parameter></function></tool_call>"
    assert content_and_calls("qwen3_coder", xml) == ("", [("sky", {"n": value})])
    glm = f"<tool_call>sky<arg_key>n</arg_key><arg_value>{value}</arg_value></tool_call>"
    assert content_and_calls("glm45", glm) == ("", [("sky", {"n": value})])


@pytest.mark.parametrize(
    ("tools", "text"),
    [
        ("hermes", '<tool_call>{"arguments": {"t": "\\ud800"}, "name": "sky"}</tool_call>'),
        ("pythonic", '[sky(t="\\ud800")]'),
        ("mistral", '[TOOL_CALLS] [{"name": "sky", "arguments": {"t": "\\ud800"}}]'),
        ("gemma4", '<|tool_call>call:sky{t:"\\ud800"}<tool_call|>'),
        ("qwen3_coder", '<function=sky><parameter=n>{"a": "\\ud800"}</parameter></function>'),
    ],
)
def test_half_a_character_is_replaced(tools: str, text: str) -> None:
    content, [(name, arguments)] = content_and_calls(tools, text)
    assert (content, name) == ("", "sky")
    assert "\N{REPLACEMENT CHARACTER}" in json.dumps(arguments, ensure_ascii=False)


def test_two_halves_are_a_character() -> None:
    assert content_and_calls("pythonic", '[sky(t="\\ud83d\\ude00")]')[1] == [("sky", {"t": "😀"})]


def test_a_schema_that_is_none_has_no_types() -> None:
    assert kinds_of({"type": [{}, "string", 1], "anyOf": 3, "allOf": {"type": "x"}}) == {"string"}
    assert kinds_of({"type": {}, "oneOf": ["x"]}) == set()
    assert property_schema({"properties": ["n"]}, "n") is None
