"""A parser reads any output in a time in proportion to it: it runs on the event loop of all."""

from __future__ import annotations

import time

import pytest

from headrace_gateway.parsers.registry import parser_for
from helpers.more_model_outputs import FAMILIES

LENGTH = 100_000
MOST_S = 10
"""CPU seconds; a second or less on a machine without other work."""
PART = 4
"""Characters of a token."""

TEXTS = {
    "mistral head": ("mistral", "[TOOL_CALLS]x", "[AAAA", "!"),
    "mistral list": ("mistral", '[TOOL_CALLS] [{"name": "sky", "arguments": {"town": "', "x", ""),
    "harmony header": ("openai", "<|channel|>", " ", "!"),
    "deepseek spaces": ("deepseek_v3", "<｜tool▁call▁begin｜>x", " ", "!"),
    "deepseek name": ("deepseek_v3", "<｜tool▁call▁begin｜>", "x ", "!"),
    "gemma key": ("gemma4", "<|tool_call>call:sky{", " ", "}<tool_call|>"),
    "gemma items": ("gemma4", "<|tool_call>call:sky{town:[", "1,", "1]}<tool_call|>"),
    "gemma ends": ("gemma4", "<|tool_call>call:sky{town:[1,2", "<tool_call|>", ""),
    "gemma blocks": ("gemma4", "", "<|tool_call>call:sky{", ""),
    "functiongemma ends": ("functiongemma", "<start_function_call>", "<end_function_call>", ""),
    "tool code": ("gemma", "```tool_code\n", "sky(town='x')\n", ""),
    "pythonic brackets": ("pythonic", "[sky(town=", "[]", ""),
    "pythonic text": ("pythonic", "[sky(town='", "] ", ""),
    "pythonic calls": ("pythonic", "", "[sky(town='x'),", ""),
    "llama object": ("llama3_json", '{"type": "', "x", ""),
    "llama name": ("llama3_json", '{"name": "', "x", ""),
    "llama spaces": ("llama3_json", "{", " ", ""),
    "llama tag": ("llama3_json", "<|python_tag|>", ".call(", ""),
    "hermes name": ("hermes", '<tool_call>{"name": "', "x", ""),
    "hermes blocks": ("hermes", "", "<tool_call>", ""),
    "hermes no end": ("hermes", '<tool_call>{"name": "sky", "arguments": {}}', "x", ""),
    "hermes arguments": ("hermes", '<tool_call>{"name": "sky", "arguments": {"town": "', "x", ""),
    "xml ends": ("qwen3_coder", "<tool_call><function=sky>", "</tool_call>", ""),
    "xml inner": ("qwen3_coder", "<function=sky>", "</function>x", ""),
    "xml names": ("qwen3_coder", "<function=sky>", "<parameter=", "</function>"),
    "glm ends": ("glm45", "<tool_call>sky<arg_key>", "</tool_call>", ""),
    "glm keys": ("glm45", "<tool_call>sky", "<arg_key>", "</arg_value></tool_call>"),
    "kimi name": ("kimi_k2", "<|tool_call_begin|>", ":1", ""),
    "space in reasoning": ("hermes", "<think>", "\n", "x"),
    "space after reasoning": ("hermes", "<think>x</think>", "\n", "x"),
    "space after a call": ("qwen3_coder", "<function=sky></function></tool_call>", "\n", "x"),
    "space within a call": ("qwen3_coder", "<function=sky></function>", "\n", "x"),
    "space first": ("pythonic", "", "\n", "x"),
    "space after json": ("llama3_json", '{"name": "sky", "parameters": {}}', "\n", "x"),
    "harmony space": ("openai", "", "\n", "x"),
    "harmony marks": ("openai", "<|channel|>final<|message|>", "<|start|>", "x"),
    "deepseek blocks": ("deepseek_v3", "", "<｜tool▁call▁begin｜>", "x"),
    "mistral marks": ("mistral", "", "[TOOL_CALLS][", "x"),
    "kimi spaces": ("kimi_k2", "<|tool_call_begin|>sky", " ", ""),
}


@pytest.mark.parametrize("name", TEXTS)
def test_no_output_holds_the_others_up(name: str) -> None:
    tools, before, repeated, after = TEXTS[name]
    family = next(each for each in FAMILIES.values() if each.tools == tools)
    text = before + repeated * (LENGTH // len(repeated)) + after
    parser = parser_for(family.rendering())
    assert parser is not None
    began_s, used_s = time.process_time(), 0.0
    for place in range(0, len(text), PART):
        parser.feed(text[place : place + PART])
        used_s = time.process_time() - began_s
        assert used_s < MOST_S, f"{used_s:.1f} s for {place} characters"
    parser.flush()
    assert time.process_time() - began_s < MOST_S
