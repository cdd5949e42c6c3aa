"""Text around calls is kept however it is cut, and so are calls of tools that are not offered."""

from __future__ import annotations

import json

import pytest

from helpers.more_model_outputs import FAMILIES
from helpers.parsed import meant, parts

CALL = '<tool_call>{"name": "sky", "arguments": {}}</tool_call>'
SKY: tuple[str, object] = ("sky", {})

NOT_OFFERED = {
    "hermes": '<tool_call>{"name": "tide", "arguments": {}}</tool_call>',
    "mistral": '[TOOL_CALLS]tide[ARGS]{"a": 1}',
    "qwen3_coder": "<tool_call><function=tide><parameter=a>1</parameter></function></tool_call>",
    "glm45": "<tool_call>tide<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
    "functiongemma": "<start_function_call>call:tide{a:1}<end_function_call>",
    "gemma4": "<|tool_call>call:tide{a:1}<tool_call|>",
    "gemma": "```tool_code\ntide(a=1)\n```",
    "pythonic": "[tide(a=1)]",
    "llama3_json": '{"name": "tide", "parameters": {}}',
    "deepseek_v3": "<｜tool▁call▁begin｜>tide<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    "kimi_k2": "<|tool_call_begin|>functions.tide:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
}


def found(tools: str, text: str) -> tuple[str, str, list[tuple[str, object]]]:
    rendering = next(each for each in FAMILIES.values() if each.tools == tools).rendering()
    whole = parts(rendering, [text])
    assert parts(rendering, text) == whole
    for place in range(1, len(text)):
        assert parts(rendering, [text[:place], text[place:]]) == whole, place
    return meant(whole)


@pytest.mark.parametrize("tools", NOT_OFFERED)
def test_a_call_of_a_tool_that_is_not_offered_is_text(tools: str) -> None:
    text = NOT_OFFERED[tools]
    assert found(tools, text) == (text, "", [])


def test_a_list_with_one_that_is_not_offered_is_text() -> None:
    calls: list[dict[str, object]] = [{"name": name, "arguments": {}} for name in ("sky", "tide")]
    text = f"[TOOL_CALLS] {json.dumps(calls)}"
    assert found("mistral", text) == (text, "", [])


def test_a_message_to_a_function_that_is_not_offered_is_content() -> None:
    header = "<|channel|>commentary to=functions.tide <|constrain|>json<|message|>"
    assert found("openai", f'{header}{{"a": 1}}<|call|>') == ('{"a": 1}', "", [])


@pytest.mark.parametrize(
    "text",
    [" Note: the \n\n<tool_call> mark", "\n\n<tool_call>", " a \n <tool_call>no call</tool_call> "],
)
def test_white_space_in_text_behind_a_call_is_kept(text: str) -> None:
    assert found("hermes", CALL + text) == (text, "", [SKY])


def test_white_space_between_calls_is_not() -> None:
    assert found("hermes", f"a {CALL}\n\n{CALL}\n") == ("a ", "", [SKY, SKY])


def test_a_call_without_an_end_does_not_hide_the_next() -> None:
    cut = CALL.removesuffix("</tool_call>")
    assert found("hermes", f"{cut}\n{CALL}") == ("", "", [SKY, SKY])
    assert found("hermes", f"<tool_call>I do.\n{CALL}") == ("<tool_call>I do.\n", "", [SKY])
    long = "It is so. " * 40
    assert found("hermes", f"{cut}{long}") == (long, "", [SKY])


@pytest.mark.parametrize(
    ("tools", "text"),
    [
        (
            "qwen3_coder",
            "<tool_call><function=sky>Well, <parameter=town>x</parameter></function></tool_call>",
        ),
        (
            "glm45",
            "<tool_call>sky<arg_key>town</arg_key><arg_value>x</arg_value> and "
            "<arg_key>days</arg_key><arg_value>1</arg_value></tool_call>",
        ),
    ],
)
def test_text_between_arguments_makes_it_no_call(tools: str, text: str) -> None:
    assert found(tools, text) == (text, "", [])


@pytest.mark.parametrize(
    "text",
    [
        "Use <|start|> to begin a message, and <|end|> behind it.",
        "A mark <|return|> and <|channel|>, and more",
        "Two words <|start|>after the mark " + "and many more " * 30,
    ],
)
def test_marks_of_harmony_in_prose_are_text(text: str) -> None:
    assert found("openai", f"<|channel|>final<|message|>{text}") == (text, "", [])


def test_text_before_a_message_is_no_header() -> None:
    text = "<|channel|>final<|message|>Blue.<|end|>Or so I think.<|start|>assistant<|channel|>final"
    expected = "Blue.<|end|>Or so I think.Grey."
    assert found("openai", f"{text}<|message|>Grey.") == (expected, "", [])
