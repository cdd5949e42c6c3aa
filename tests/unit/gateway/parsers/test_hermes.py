"""Tool calls in the output of a model: found however it is cut, and nothing is lost."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_gateway.parsers.families.json_calls import HermesCalls
from headrace_gateway.parsers.pieces import CallPiece, Reasoning

SKY = '{"name": "sky", "arguments": {"town": "Fernby", "s": "}\\"{</tool_call>"}}'
SKY_ARGUMENTS = '{"town": "Fernby", "s": "}\\"{</tool_call>"}'
TIME = '{"name": "time", "arguments": {}}'

Heard = tuple[str, list[tuple[str, str]]]
"""Content, and calls as (name, arguments)."""


def heard(pieces: list[str]) -> Heard:
    parser = HermesCalls({})
    content, calls = "", list[tuple[str, str]]()
    said = [each for piece in pieces for each in parser.feed(piece)]
    for each in [*said, *parser.flush()]:
        if isinstance(each, str):
            content += each
        elif isinstance(each, Reasoning):
            raise AssertionError(each)
        elif each.name is not None:
            assert each.index == len(calls)
            calls.append((each.name, each.arguments))
        else:
            assert each.index == len(calls) - 1
            name, arguments = calls[-1]
            calls[-1] = name, arguments + each.arguments
    return content, calls


TEXTS: list[tuple[str, Heard]] = [
    ("", ("", [])),
    ("Just text, with < and <tool.", ("Just text, with < and <tool.", [])),
    (f"<tool_call>{SKY}</tool_call>", ("", [("sky", SKY_ARGUMENTS)])),
    (f"<tool_call>\n{TIME}\n</tool_call>", ("", [("time", "{}")])),
    (
        f"Let me see. <tool_call>{SKY}</tool_call>\n<tool_call>{TIME}</tool_call>\n",
        ("Let me see. ", [("sky", SKY_ARGUMENTS), ("time", "{}")]),
    ),
    (f"<tool_call>{TIME}</tool_call>\nDone.", ("\nDone.", [("time", "{}")])),
    # Another order, no arguments, and no end: still calls.
    ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', ("", [("f", '{"a": 1}')])),
    ('<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
    (f"<tool_call>{TIME}", ("", [("time", "{}")])),
    ('<tool_call>{"name": "f"}', ("", [("f", "{}")])),
    # Cut by max_tokens: what there is of the arguments.
    ('<tool_call>{"name": "f", "arguments": {"a": [1', ("", [("f", '{"a": [1')])),
    (f"<tool_call>{TIME}</tool_", ("", [("time", "{}")])),
    # No calls: every character stays.
    ("<tool_call>not JSON</tool_call>!", ("<tool_call>not JSON</tool_call>!", [])),
    ('<tool_call>{"name": 1}</tool_call>', ('<tool_call>{"name": 1}</tool_call>', [])),
    ('<tool_call>{"name": "f", "argum', ('<tool_call>{"name": "f", "argum', [])),
    ("<tool_call>[1]</tool_call>", ("<tool_call>[1]</tool_call>", [])),
    ("<tool_call>" + "[" * 9999, ("<tool_call>" + "[" * 9999, [])),
    (
        '<tool_call>{"name": "f", "arguments": "no"}</tool_call>',
        ('<tool_call>{"name": "f", "arguments": "no"}</tool_call>', []),
    ),
    # More than a call inside the tags: the rest is content.
    (
        '<tool_call>{"name": "f", "arguments": {}}, "more": 1}</tool_call>',
        (', "more": 1}', [("f", "{}")]),
    ),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_calls_and_content_are_separated(text: str, expected: Heard) -> None:
    assert heard([text]) == expected
    assert heard(list(text)) == expected


@given(st.sampled_from(TEXTS[:-3]), st.lists(st.integers(0, 200)))
def test_it_does_not_matter_how_the_text_is_cut(case: tuple[str, Heard], cuts: list[int]) -> None:
    text, expected = case
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    assert heard([text[a:b] for a, b in itertools.pairwise(places)]) == expected


@given(st.text(alphabet='<tool_call>/{}"name:arguments, \\', max_size=80))
def test_text_without_a_whole_call_is_unchanged(text: str) -> None:
    content, calls = heard(list(text))
    if not calls:
        assert content == text


def test_the_name_is_sent_before_the_arguments_and_those_as_they_arrive() -> None:
    parser = HermesCalls({})
    assert parser.feed('<tool_call>{"name": "sky", "arguments": ') == []
    assert parser.feed("{") == [CallPiece(0, "sky", ""), CallPiece(0, None, "{")]
    assert parser.feed('"town": ') == [CallPiece(0, None, '"town": ')]
    assert parser.feed('"Fernby"}}') == [CallPiece(0, None, '"Fernby"}')]
    assert parser.feed("</tool_call>") == []
    assert parser.flush() == []


def test_text_is_not_held_back_longer_than_it_may_be_a_tag() -> None:
    parser = HermesCalls({})
    assert parser.feed("a <tool") == ["a "]
    assert parser.feed(" of") == ["<tool of"]


def test_json_of_the_arguments_is_as_the_model_wrote_it() -> None:
    odd = '{"a":1 ,  "b":[ ]}'
    assert heard([f'<tool_call>{{"name": "f", "arguments": {odd}}}</tool_call>'])[1] == [("f", odd)]
    assert json.loads(odd) == {"a": 1, "b": []}
