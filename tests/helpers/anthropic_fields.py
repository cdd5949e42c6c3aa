"""The tables of docs/anthropic_fields.md: every field of Anthropic's bodies, and what it does.

PYTHONPATH=tests python tests/helpers/anthropic_fields.py docs/anthropic_fields.md
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from anthropic import types

from headrace_gateway.api.anthropic import bodies
from headrace_gateway.api.anthropic.blocks import Block
from headrace_gateway.api.bodies.strict_body import StrictBody
from helpers.openai_fields import Table, of_body, page

INTRODUCTION = """\
# Fields of Anthropic's API

This page is made from the code (`tests/helpers/anthropic_fields.py`); a test holds it against the
descriptions that come with Anthropic's Python package. What served, no effect and refused mean, and
what becomes of unknown fields, is said [for OpenAI's](openai_fields.md).

Of blocks, `text`, `thinking`, `redacted_thinking`, `tool_use` and `tool_result` are served, and
others refused by name; of tools, those that the client runs.
"""
NOTES = {
    "budget_tokens": "Where the model can keep it, as `reasoning_budget`; else without effect.",
    "content": "A text or blocks.",
    "display": "`omitted`: the block has its signature only.",
    "effort": "The variable `reasoning_effort` of the chat template.",
    "format": "`json_schema`, with its `schema`.",
    "input_examples": "They become the `examples` of the schema.",
    "is_error": "The line `Error:` goes before the result.",
    "max_tokens": "What the context has not is not generated.",
    "output_format": "The older place of `output_config.format`.",
    "role": "`user`, `assistant`, `system`.",
    "service_tier": "`standard_only`: standard.",
    "strict": "Calls that the model makes by itself fit the schema.",
    "temperature": "0 to 1.",
    "thinking": "The variables `enable_thinking` and `thinking` of the chat template.",
    "tool_choice": "A tool that must be called is called, by the schema of its input.",
}
_BLOCKS = (
    types.TextBlockParam,
    types.ThinkingBlockParam,
    types.RedactedThinkingBlockParam,
    types.ToolUseBlockParam,
    types.ToolResultBlockParam,
)


def _table(title: str, body: type[StrictBody], *kinds: Any) -> Table:
    return replace(
        of_body(title, body, *kinds), notes=NOTES, owner="Anthropic", others="beta, earlier"
    )


TABLES = (
    _table(
        "`/v1/messages`",
        bodies.MessagesBody,
        types.message_create_params.MessageCreateParamsNonStreaming,
        types.message_create_params.MessageCreateParamsStreaming,
    ),
    _table(
        "`/v1/messages/count_tokens`",
        bodies.CountTokensBody,
        types.message_count_tokens_params.MessageCountTokensParams,
    ),
    _table("`messages[]`", bodies.Message, types.UserMessageParam, types.AssistantMessageParam),
    replace(
        _table("`messages[].content[]`", Block, *_BLOCKS),
        notes=NOTES | {"thinking": "The `reasoning_content` of the message in the chat template."},
    ),
    _table("`tools[]`", bodies.ToolBody, types.ToolParam),
    _table(
        "`tool_choice`",
        bodies.ToolChoiceBody,
        types.ToolChoiceAutoParam,
        types.ToolChoiceAnyParam,
        types.ToolChoiceToolParam,
        types.ToolChoiceNoneParam,
    ),
    _table(
        "`thinking`",
        bodies.ThinkingBody,
        types.ThinkingConfigEnabledParam,
        types.ThinkingConfigDisabledParam,
        types.ThinkingConfigAdaptiveParam,
    ),
    _table("`output_config`", bodies.OutputConfigBody, types.OutputConfigParam),
)


def fields_page() -> str:
    return page(INTRODUCTION, TABLES)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(fields_page())
