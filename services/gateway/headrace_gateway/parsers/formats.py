"""Pure: how calls are written, as grammars of each family that its own parser reads."""

from __future__ import annotations

from dataclasses import dataclass

_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_CALL, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


@dataclass(frozen=True, slots=True)
class Keyword:
    """An argument is `before`, its value and `after`; NAME is its name."""

    before: str
    after: str = ""
    joiner: str = ""
    """Between two of them."""
    quote: str = ""
    """Around texts."""
    writes_json: bool = False
    """Texts are JSON as well."""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A call is `begin`, arguments, `end`; NAME is the name, and JSON_NAME the name in quotes."""

    begin: str
    end: str
    trigger: str
    """What a call in free text begins with; empty: calls are held where they are all."""
    separator: str = ""
    keyword: Keyword | None = None
    """How arguments are written one by one; unset: they are one JSON object."""
    section: tuple[str, str] = ("", "")
    """Around all calls."""
    middle: str = ""
    """A regular expression between `begin` and the arguments."""


_PYTHON = Keyword("NAME=", joiner=", ", writes_json=True)
_ELEMENT = Keyword("<parameter=NAME>\n", "\n</parameter>\n")
_PAIR = Keyword("<arg_key>NAME</arg_key>\n<arg_value>", "</arg_value>\n")
_QUOTED = '{"name": JSON_NAME, "arguments": '

FORMATS = {
    "hermes": CallFormat(
        f"<tool_call>\n{_QUOTED}", "}\n</tool_call>", "<tool_call>", separator="\n"
    ),
    "hermes_inline": CallFormat(f"<tool_call>{_QUOTED}", "}</tool_call>", "<tool_call>"),
    "qwen3_coder": CallFormat(
        "<tool_call>\n<function=NAME>\n",
        "</function>\n</tool_call>",
        "<tool_call>",
        separator="\n",
        keyword=_ELEMENT,
    ),
    "llama3_json": CallFormat('{"name": JSON_NAME, "parameters": ', "}", "", separator="; "),
    "pythonic": CallFormat("NAME(", ")", "", ", ", _PYTHON, ("[", "]")),
    "llama4_pythonic": CallFormat("NAME(", ")", "", ", ", _PYTHON, ("[", "]")),
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
        "<tool_call>NAME\n", "</tool_call>", "<tool_call>", separator="\n", keyword=_PAIR
    ),
    "kimi_k2": CallFormat(
        "<|tool_call_begin|>functions.NAME:",
        "<|tool_call_end|>",
        "<|tool_calls_section_begin|>",
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        middle=r"[0-9]{1,3}<\|tool_call_argument_begin\|>",
    ),
    "openai": CallFormat(
        # Why with the channel: an answer may speak of the recipient.
        "<|channel|>commentary to=functions.NAME",
        "",
        "<|channel|>commentary to=functions.",
        middle=r" (<\|constrain\|>)?json<\|message\|>",
    ),
    "functiongemma": CallFormat(
        "<start_function_call>call:NAME{",
        "}<end_function_call>",
        "<start_function_call>",
        keyword=Keyword("NAME:", joiner=",", quote="<escape>"),
    ),
    "gemma": CallFormat(
        "```tool_code\nprint(NAME(", "))\n```", "```tool_code\n", separator="\n", keyword=_PYTHON
    ),
    "gemma4": CallFormat(
        "<|tool_call>call:NAME{",
        "}<tool_call|>",
        "<|tool_call>",
        keyword=Keyword("NAME:", joiner=",", quote='<|"|>'),
    ),
}
"""By the name of the tool parser."""
