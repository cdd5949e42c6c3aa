"""What each family of models writes is taken apart the same way, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.internal.v1.request_pb2 import Rendering
from headrace.output_parsers.names import REASONING_PARSERS, TOOL_PARSERS
from headrace_gateway.parsers.pieces import Reasoning
from headrace_gateway.parsers.registry import parser_for
from helpers.model_outputs import Family, Written
from helpers.more_model_outputs import FAMILIES
from helpers.parsed import meant, parts

TEXTS = [(family, each) for family in FAMILIES.values() for each in family.texts]
NAMES = [f"{name}-{i}" for name, family in FAMILIES.items() for i in range(len(family.texts))]


@pytest.mark.parametrize(("family", "written"), TEXTS, ids=NAMES)
def test_a_text_is_content_reasoning_and_calls(family: Family, written: Written) -> None:
    expected = written.content, written.reasoning, list(written.calls)
    rendering = family.rendering(opens=written.opens)
    assert meant(parts(rendering, [written.text])) == expected


@pytest.mark.parametrize(("family", "written"), TEXTS, ids=NAMES)
def test_it_does_not_matter_where_it_is_cut(family: Family, written: Written) -> None:
    text, rendering = written.text, family.rendering(opens=written.opens)
    whole = parts(rendering, [text])
    assert parts(rendering, text) == whole
    for place in range(1, len(text)):
        assert parts(rendering, [text[:place], text[place:]]) == whole, place


@given(st.sampled_from(TEXTS), st.lists(st.integers(0, 300)))
def test_nor_how_often(case: tuple[Family, Written], cuts: list[int]) -> None:
    family, written = case
    text, rendering = written.text, family.rendering(opens=written.opens)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert parts(rendering, pieces) == parts(rendering, [text])


MARKS = sorted(
    {
        *("<tool_call>", "</tool_call>", "<function=sky>", "</function>", "<parameter=town>"),
        *("</parameter>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "sky", "time"),
        *(
            '{"name": "sky", "arguments": ',
            '{"name": "time", "parameters": {}}',
            "{",
            "}",
            "[",
            "]",
        ),
        *("[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "<think>", "</think>", "<|python_tag|>"),
        *("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<|tool_call_begin|>"),
        *("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_calls_section_begin|>"),
        *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "assistant", " to=functions.sky"),
        *(
            "analysis",
            "final",
            "```tool_code\n",
            "\n```",
            "sky(town='x')",
            "[sky(",
            ")]",
            ", ",
            "; ",
        ),
        *("<start_function_call>", "call:sky{", "town:", "<escape>", "<end_function_call>", "\n"),
        *("<|tool_call>", "<tool_call|>", "<|channel>thought\n", "<channel|>", " ", '"', "\\", "x"),
        *("Here is my thought process:", "Here is my response:", "functions.sky:0", "print(1)"),
    }
)


@given(st.sampled_from(list(FAMILIES.values())), st.lists(st.sampled_from(MARKS)), st.booleans())
def test_marks_in_any_order_are_cut_anywhere_alike(
    family: Family, marks: list[str], opens: bool
) -> None:
    rendering = family.rendering(opens=opens)
    whole = parts(rendering, ["".join(marks)])
    assert parts(rendering, "".join(marks)) == whole
    assert parts(rendering, marks) == whole


@given(st.sampled_from(list(FAMILIES.values())), st.lists(st.sampled_from(MARKS)))
def test_what_is_no_call_stays_text(family: Family, marks: list[str]) -> None:
    text = "".join(marks)
    content, reasoning, calls = parts(family.rendering(), [text])
    if not calls and not reasoning and content and family.tools != "openai":
        kept = "".join(content.split())
        dropped = "".join(text.split())
        for mark in ("<think></think>", "[THINK][/THINK]", "<|channel>thought<channel|>"):
            dropped = dropped.removeprefix(mark) if family.reasoning else dropped
        assert kept == dropped or any(mark in dropped for mark in DROPPED)


DROPPED = ("<|tool_calls_section_begin|>", "think", "THINK", "Hereismy", "<|channel>")
"""Marks around calls, and around reasoning, which are no text of the model's."""


def test_where_one_call_is_requested_others_are_left_out() -> None:
    for family in FAMILIES.values():
        for written in family.texts:
            rendering = family.rendering(opens=written.opens, single_call=True)
            content, _, calls = meant(parts(rendering, [written.text]))
            assert content == written.content
            assert calls == list(written.calls)[:1]


def test_every_name_has_a_parser() -> None:
    for name in TOOL_PARSERS:
        assert parser_for(Rendering(calls_tools=True, tool_parser=name)) is not None
    for name in REASONING_PARSERS:
        assert parser_for(Rendering(reasoning_parser=name)) is not None
    assert {family.tools for family in FAMILIES.values()} >= set(TOOL_PARSERS) - {
        *("hermes_inline", "llama4_pythonic", "mistral_list")
    }
    assert {family.reasoning for family in FAMILIES.values()} >= set(REASONING_PARSERS)


def test_reasoning_is_sent_as_it_comes() -> None:
    parser = parser_for(FAMILIES["hermes"].rendering())
    assert parser is not None
    assert parser.feed("<think>Look") == [Reasoning("Look")]
    assert parser.feed(" it </th") == [Reasoning(" it")]
    assert parser.reasons
    assert parser.feed("ink>") == []
    assert not parser.reasons
    assert parser.feed("\n\nBlue") == ["Blue"]
