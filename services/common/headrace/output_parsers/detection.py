"""Pure: which parsers a model needs, judged by its chat template."""

from __future__ import annotations


def tool_parser_of(chat_template: str | None) -> str:
    """Return how a model writes tool calls, judged by its chat template; empty: none is known."""
    template = chat_template or ""
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        lines = "<tool_call>\n" in template or "<tool_call>\\n" in template
        return "hermes" if lines else "hermes_inline"
    return ""


def reasoning_parser_of(chat_template: str | None) -> str:
    """Return how a model writes reasoning, judged by its chat template; empty: none is known."""
    template = chat_template or ""
    return "qwen3" if "<think>" in template else ""
