"""Pure: which parsers a model needs, judged by its chat template."""

from __future__ import annotations

from collections.abc import Sequence

_CODER, _GLM = "<function=", "<arg_key>"
_PYTHON = ("func_name1(params_name1=params_value1", "<|python_start|>")

_TOOLS: Sequence[tuple[tuple[str, ...], str]] = (
    (("<|channel|>", "<|message|>"), "openai"),
    (("<｜tool▁calls▁begin｜>", "```json"), "deepseek_v3"),
    (("<｜tool▁calls▁begin｜>",), "deepseek_v31"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<tool_call>", _GLM), "glm45"),
    (("<tool_call>", _CODER), "qwen3_coder"),
    (("<tool_call>\n",), "hermes"),
    (("<tool_call>\\n",), "hermes"),
    (("<tool_call>",), "hermes_inline"),
    (("[TOOL_CALLS]", "[ARGS]"), "mistral"),
    (("[TOOL_CALLS]",), "mistral_list"),
    ((_PYTHON[0],), "llama4_pythonic"),
    ((_PYTHON[1],), "llama4_pythonic"),
    (("<|tool_call>",), "gemma4"),
    (("<start_function_call>",), "functiongemma"),
    (("```tool_code",), "gemma"),
    (("<|eot_id|>", '"parameters": '), "llama3_json"),
)
"""What a template has to contain, all of it; the first that fits."""

_REASONING: Sequence[tuple[tuple[str, ...], str]] = (
    (("<|channel|>", "<|message|>"), "openai_gptoss"),
    (("[THINK]",), "mistral"),
    (("<|channel>thought",), "gemma4"),
    (("</think>", "<|tool_calls_section_begin|>"), "kimi_k2"),
    (("</think>", _GLM), "glm45"),
    (("</think>", "<｜Assistant｜>", "thinking"), "deepseek_v3"),
    (("</think>", "<｜Assistant｜>"), "deepseek_r1"),
    (("</think>",), "qwen3"),
    (("<think>",), "qwen3"),
    (("Here is my thought process:",), "granite"),
)


def tool_parser_of(chat_template: str | None) -> str:
    """Return how a model writes tool calls; empty: none is known."""
    return _first(_TOOLS, chat_template or "")


def reasoning_parser_of(chat_template: str | None) -> str:
    """Return how a model writes reasoning; empty: none is known."""
    return _first(_REASONING, chat_template or "")


def _first(rules: Sequence[tuple[tuple[str, ...], str]], template: str) -> str:
    found = (name for parts, name in rules if all(part in template for part in parts))
    return next(found, "")
