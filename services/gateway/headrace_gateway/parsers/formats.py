"""Pure: how calls are written, as grammars of each family that its own parser reads."""

from __future__ import annotations

from dataclasses import dataclass

_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_CALL, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A call is `begin`, arguments, `end`; NAME is the name, and JSON_NAME the name in quotes."""

    begin: str
    end: str
    trigger: str
    """What a call in free text begins with; empty: calls are a whole output."""
    separator: str = ""
    style: str = "json"
    """Of the arguments: JSON, one of xgrammar's styles, Python's keywords, or any text."""
    section: tuple[str, str] = ("", "")
    """Around all calls."""
    middle: str = ""
    """A regular expression between `begin` and the arguments."""


_QUOTED = '{"name": JSON_NAME, "arguments": '

FORMATS = {
    "hermes": CallFormat(
        f"<tool_call>\n{_QUOTED}", "}\n</tool_call>", "<tool_call>", separator="\n"
    ),
    "hermes_inline": CallFormat(f"<tool_call>{_QUOTED}", "}</tool_call>", "<tool_call>"),
    "qwen3_coder": CallFormat(
        "<tool_call>\n<function=NAME>\n",
        "\n</function>\n</tool_call>",
        "<tool_call>",
        separator="\n",
        style="qwen_xml",
    ),
    "llama3_json": CallFormat(
        '{"name": JSON_NAME, "parameters": ', "}", '{"name": ', separator="; "
    ),
    "pythonic": CallFormat("NAME(", ")", "", ", ", "python", ("[", "]")),
    "llama4_pythonic": CallFormat("NAME(", ")", "", ", ", "python", ("[", "]")),
    "mistral": CallFormat("[TOOL_CALLS]NAME[ARGS]", "", "[TOOL_CALLS]"),
    "mistral_list": CallFormat(
        _QUOTED, "}", "[TOOL_CALLS]", separator=", ", section=("[TOOL_CALLS] [", "]")
    ),
    "deepseek_v3": CallFormat(
        f"{_CALL}function{_SEP}NAME\n```json\n",
        f"\n```{_END}",
        _CALLS[0],
        separator="\n",
        section=_CALLS,
    ),
    "deepseek_v31": CallFormat(f"{_CALL}NAME{_SEP}", _END, _CALLS[0], section=_CALLS),
    "glm45": CallFormat(
        "<tool_call>NAME\n", "</tool_call>", "<tool_call>", separator="\n", style="glm_xml"
    ),
    "kimi_k2": CallFormat(
        "<|tool_call_begin|>functions.NAME:",
        "<|tool_call_end|>",
        "<|tool_calls_section_begin|>",
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        middle=r"[0-9]{1,3}<\|tool_call_argument_begin\|>",
    ),
    "openai": CallFormat(
        "to=functions.NAME",
        "",
        "to=functions.",
        middle=r"( |<\|channel\|>commentary )(<\|constrain\|>)?json<\|message\|>",
    ),
    "functiongemma": CallFormat(
        "<start_function_call>call:NAME{",
        "}<end_function_call>",
        "<start_function_call>",
        style="text",
    ),
    "gemma": CallFormat(
        "```tool_code\nprint(NAME(", "))\n```", "```tool_code\n", separator="\n", style="python"
    ),
    "gemma4": CallFormat("<|tool_call>call:NAME", "<tool_call|>", "<|tool_call>", style="gemma"),
}
"""By the name of the tool parser."""
