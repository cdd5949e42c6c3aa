"""A model's parsers are found in its chat template, and can be chosen."""

from __future__ import annotations

import pytest

from headrace.output_parsers.detection import reasoning_parser_of, tool_parser_of
from headrace.output_parsers.names import ALIASES, REASONING_PARSERS, TOOL_PARSERS
from headrace.supervisor.plan.mesh_options import ModelSource, with_parsers
from headrace.supervisor.state.failures import InvalidOption

TEMPLATES = [
    ("{{ message.content }}", "", ""),
    ("'<tool_call>\\n{\"name\": ' <think> enable_thinking </think>", "hermes", "qwen3"),
    ("<tool_call>{{ call | tojson }}</tool_call>", "hermes_inline", ""),
    ("<tool_call>\\n<function=' + name + '>", "qwen3_coder", ""),
    ("<tool_call>' + name <arg_key> <think></think>", "glm45", "glm45"),
    ("[TOOL_CALLS]' + name + '[ARGS]' [THINK]", "mistral", "mistral"),
    ("[TOOL_CALLS] [", "mistral_list", ""),
    ("<｜Assistant｜> <｜tool▁calls▁begin｜> ```json </think>", "deepseek_v3", "deepseek_r1"),
    ("<｜Assistant｜> <｜tool▁calls▁begin｜> thinking </think>", "deepseek_v31", "deepseek_v3"),
    ("<|tool_calls_section_begin|> <think></think>", "kimi_k2", "kimi_k2"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "openai", "openai_gptoss"),
    ('<|eot_id|> {"name": function name, "parameters": dictionary', "llama3_json", ""),
    ("[func_name1(params_name1=params_value1, params_name2=...)]", "llama4_pythonic", ""),
    ("```tool_code", "gemma", ""),
    ("<start_function_call>call:", "functiongemma", ""),
    ("<|tool_call>call: <|channel>thought", "gemma4", "gemma4"),
    ("Here is my thought process: Here is my response:", "", "granite"),
]


@pytest.mark.parametrize(("template", "tools", "reasoning"), TEMPLATES)
def test_parsers_are_found_in_the_template(template: str, tools: str, reasoning: str) -> None:
    assert (tool_parser_of(template), reasoning_parser_of(template)) == (tools, reasoning)
    assert tools in ("", *TOOL_PARSERS)
    assert reasoning in ("", *REASONING_PARSERS)
    assert set(ALIASES.values()) <= set(TOOL_PARSERS)


MODELS = (ModelSource("a", "a"), ModelSource("b", "b"))


def test_parsers_are_chosen_for_all_models_or_for_each() -> None:
    chosen = {"tool_parser": ["hermes"], "reasoning_parser": ["none", "qwen3"]}
    first, second = with_parsers(MODELS, chosen)
    assert first.parsers == (("tool_parser", "hermes"), ("reasoning_parser", "none"))
    assert second.parsers == (("tool_parser", "hermes"), ("reasoning_parser", "qwen3"))
    assert with_parsers(MODELS, {"tool_parser": []}) == MODELS


def test_unknown_parsers_and_a_wrong_number_of_them_are_refused() -> None:
    with pytest.raises(InvalidOption, match="--tool-parser is 'herms'"):
        with_parsers(MODELS, {"tool_parser": ["herms"]})
    with pytest.raises(InvalidOption, match="3 times for 2 models"):
        with_parsers(MODELS, {"tool_parser": ["hermes"] * 3})
