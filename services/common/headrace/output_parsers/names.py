"""How models write tool calls and reasoning: the names of the parsers, as vLLM has them."""

from __future__ import annotations

AUTO, NONE = "auto", "none"

TOOL_PARSERS = (
    *("hermes", "hermes_inline", "qwen3_coder", "llama3_json", "pythonic", "llama4_pythonic"),
    *("mistral", "mistral_list", "deepseek_v3", "deepseek_v31", "glm45", "kimi_k2", "openai"),
    *("functiongemma", "gemma", "gemma4"),
)
REASONING_PARSERS = (
    *("qwen3", "deepseek_r1", "deepseek_v3", "glm45", "kimi_k2", "openai_gptoss", "mistral"),
    *("granite", "gemma4"),
)
ALIASES = {
    "qwen3_xml": "qwen3_coder",
    "llama4_json": "llama3_json",
    "glm47": "glm45",
    "gpt_oss": "openai",
}
"""Other names of the same."""
