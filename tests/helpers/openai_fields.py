"""The tables of docs/openai_fields.md: every field of OpenAI's and vLLM's bodies, and what it does.

PYTHONPATH=tests python tests/helpers/openai_fields.py docs/openai_fields.md
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openai.types import (
    chat,
    completion_create_params,
    embedding_create_params,
    responses,
    shared_params,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.conversations import conversation_create_params
from openai.types.shared_params import FunctionDefinition
from pydantic import BaseModel

from headrace_gateway.api.bodies.entries import CALL, CALLED, FUNCTION, TEXT, TOOL
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody, Message, StreamOptions
from headrace_gateway.api.bodies.strict_body import StrictBody
from headrace_gateway.api.bodies.unsupported_fields import (
    CALL_NO_EFFECT,
    CALLED_NO_EFFECT,
    PART_NO_EFFECT,
    IgnoredFields,
    UnsupportedFields,
)
from headrace_gateway.api.bodies.vectors import EmbeddingsBody, RerankBody
from headrace_gateway.api.responses.wire.bodies import (
    ConversationBody,
    CountBody,
    FunctionTool,
    Reasoning,
    ResponseBody,
    ResponseStreamOptions,
    TextConfig,
)
from headrace_gateway.api.responses.wire.fields import ITEMS, ITEMS_NO_EFFECT, ITEMS_NOT_SERVED

INTRODUCTION = """\
# Fields of OpenAI's API

This page is made from the code (`tests/helpers/openai_fields.py`); a test holds it against the
descriptions that come with OpenAI's Python package.

- **served**: it does what OpenAI's or vLLM's documentation says.
- **no effect**: it is accepted, and does nothing, because it cannot change the answer.
- **refused**: it would change the answer and is not served. It answers 400 with its name, unless
  its value is `null` or one of those named, which mean that it is not used.

A field that is not on this page is unknown. It is passed over: the answer's header
`x-headrace-ignored` names up to sixteen of them, and `headrace_gateway_ignored_fields_total` counts
them. To have unknown fields refused, send the header `x-headrace-strict-fields: true`, or set
`strict_fields` of the gateway; `x-headrace-strict-fields: false` is for one call again.

A body may be compressed by gzip or deflate, with or without a `Content-Encoding`; what it unpacks
to is bounded by `max_body_bytes`, too. A byte order mark before it is passed over.
"""

NOTES = {
    "add_special_tokens": "The tokenizer's own, around the prompt.",
    "best_of": "Where it equals `n`.",
    "background": "The request goes on without any reader; the answer is 202 at once.",
    "cache_salt": "1 to 256 characters. Not with llama.cpp and `openai` engines.",
    "allowed_token_ids": "At most 10000. Not with llama.cpp, vLLM and `openai` engines.",
    "bad_words": "At most 128. Not with llama.cpp, vLLM and `openai` engines.",
    "min_tokens": "Not with llama.cpp, vLLM and `openai` engines.",
    "continue_final_message": "The prompt ends within the last message, which the model continues.",
    "chat_template_kwargs": "Variables of the chat template, before the model's own defaults.",
    "grammar": "llama.cpp's; as `guided_grammar`.",
    "json_schema": "llama.cpp's; as `guided_json`.",
    "include_reasoning": "`false`: reasoning is left out of the answer.",
    "reasoning_effort": "Passed to the chat template; `none` also as `enable_thinking: false`.",
    "documents": "Where the model's chat template reads them.",
    "echo": "Before each choice: in completions the prompt, in chat the text of the last message,"
    " where an assistant said it.",
    "n": "1 to 128, and no more than a worker has slots.",
    "priority": "Below 0: interactive. 0: the tenant's own. Above 0: bulk.",
    "prompt_logprobs": "In whole answers only.",
    "reasoning": "As `reasoning_content`.",
    "reasoning_content": "Passed to the chat template; answers have it as well.",
    "refusal": "The text of a message that has no content.",
    "function_call": "As one tool call.",
    "request_id": "1 to 64 of `A-Z a-z 0-9 _ -`, unique among open requests.",
    "role": "`system`, `developer`, `user`, `assistant`, `tool`, `function`.",
    "service_tier": "`priority`: interactive, `default`: standard, `flex`: bulk.",
    "stop": "At most 1024 texts of 16384 characters in all.",
    "thinking_token_budget": "Most tokens of reasoning; then its end is forced. Not with gpt-oss.",
    "tool_call_id": "Needed where the role is `tool`.",
    "truncate_prompt_tokens": "The last so many are read; -1: as many as there is room for.",
    "typical_p": "As `transformers` and llama.cpp have it. Not with vLLM and `openai` engines.",
}
NOTES_OF_VECTORS = {
    "normalize": "`true`: vectors get length 1. `false`: where the model does not give them that.",
    "documents": "Texts, or objects that have nothing but a `text`.",
    "truncate_prompt_tokens": "The first so many are read; -1: as many as the model takes.",
}
NOTES_OF_RESPONSES = {
    "arguments": "",
    "background": "",
    "content": "Texts: `input_text`, `output_text`, `text`, `refusal`.",
    "conversation": "An id, or an object with it.",
    "effort": "As `reasoning_effort` of a chat.",
    "encrypted_content": "Of this server: it hides the form of a text, not its meaning.",
    "format": "`text`, `json_object`, `json_schema`; as `response_format` of a chat.",
    "generate_summary": "As `summary`.",
    "include": "`message.output_text.logprobs` and `reasoning.encrypted_content`; the others are of"
    " tools that do not run here.",
    "input": "A text, or items of the types below; others are refused by their type.",
    "metadata": "At most 16 pairs; it is stored with the response.",
    "store": "Unset: true.",
    "strict": "Unset: false. OpenAI's default is true, by which it rewrites schemas.",
    "summary": "Of a request: reasoning is in the summary then, as it is; nothing is summarized. Of"
    " an item: its text, where it has no `content`.",
    "tool_choice": "`none`, `auto`, `required`, a function, `allowed_tools`.",
    "tools": "Functions. Built-in tools, as `web_search`, are refused by their type.",
    "truncation": "`auto`: the oldest messages are left out where there are too many.",
}
OURS = frozenset({"background"})
"""Fields of neither."""


@dataclass(frozen=True)
class Table:
    title: str
    described: frozenset[str]
    """In OpenAI's package."""
    served: frozenset[str]
    no_effect: IgnoredFields
    not_served: UnsupportedFields
    notes: Mapping[str, str] = field(default_factory=lambda: NOTES)
    owner: str = "OpenAI"
    """Whose package describes them."""
    others: str = "vLLM, others"
    """Whose the fields are that it does not describe."""

    @property
    def known(self) -> frozenset[str]:
        return self.served | self.no_effect.keys() | self.not_served.keys()


def _fields(*kinds: Any) -> frozenset[str]:
    """Of what is sent, and of answers, which are sent back."""
    return frozenset(
        name
        for kind in kinds
        for name in (
            kind.model_fields if issubclass(kind, BaseModel) else typing.get_type_hints(kind)
        )
    )


def of_body(title: str, body: type[StrictBody], *kinds: Any) -> Table:
    served = frozenset(body.model_fields) - body.IGNORED_FIELDS.keys()
    return Table(title, _fields(*kinds), served, body.IGNORED_FIELDS, body.UNSUPPORTED_FIELDS)


def _of_entry(title: str, known: Iterable[str], no_effect: IgnoredFields, *kinds: Any) -> Table:
    return Table(title, _fields(*kinds), frozenset(known) - no_effect.keys(), no_effect, {})


_MESSAGES = (
    chat.ChatCompletionDeveloperMessageParam,
    chat.ChatCompletionSystemMessageParam,
    chat.ChatCompletionUserMessageParam,
    chat.ChatCompletionAssistantMessageParam,
    chat.ChatCompletionToolMessageParam,
    chat.ChatCompletionFunctionMessageParam,
    chat.ChatCompletionMessage,
)
_CALL = chat.chat_completion_message_function_tool_call_param
CHAT_TABLES = (
    of_body(
        "`/v1/chat/completions`",
        ChatBody,
        chat_create_params.CompletionCreateParamsNonStreaming,
        chat_create_params.CompletionCreateParamsStreaming,
    ),
    of_body("`messages[]`", Message, *_MESSAGES),
    _of_entry(
        "`messages[].content[]`, of type `text`",
        TEXT,
        PART_NO_EFFECT,
        chat.ChatCompletionContentPartTextParam,
    ),
    _of_entry(
        "`messages[].tool_calls[]`",
        CALL,
        CALL_NO_EFFECT,
        _CALL.ChatCompletionMessageFunctionToolCallParam,
    ),
    _of_entry("`messages[].tool_calls[].function`", CALLED, CALLED_NO_EFFECT, _CALL.Function),
    _of_entry("`tools[]`, of type `function`", TOOL, {}, chat.ChatCompletionFunctionToolParam),
    _of_entry("`tools[].function`", FUNCTION, {}, FunctionDefinition),
    of_body("`stream_options`", StreamOptions, chat.ChatCompletionStreamOptionsParam),
    of_body(
        "`/v1/completions`",
        CompletionBody,
        completion_create_params.CompletionCreateParamsNonStreaming,
        completion_create_params.CompletionCreateParamsStreaming,
    ),
    replace(
        of_body("`/v1/embeddings`", EmbeddingsBody, embedding_create_params.EmbeddingCreateParams),
        notes=NOTES | NOTES_OF_VECTORS,
    ),
    replace(of_body("`/v1/rerank`", RerankBody), notes=NOTES | NOTES_OF_VECTORS),
)


_RESPONSES = responses.response_create_params
_ITEMS: Mapping[str, tuple[Any, ...]] = {
    "message": (
        responses.EasyInputMessageParam,
        responses.response_input_item_param.Message,
        responses.ResponseOutputMessageParam,
        responses.ResponseOutputMessage,
    ),
    "function_call": (
        responses.ResponseFunctionToolCallParam,
        responses.response_function_tool_call_item.ResponseFunctionToolCallItem,
    ),
    "function_call_output": (
        responses.response_input_item_param.FunctionCallOutput,
        responses.ResponseFunctionToolCallOutputItem,
    ),
    "reasoning": (responses.ResponseReasoningItemParam, responses.ResponseReasoningItem),
    "item_reference": (responses.response_input_item_param.ItemReference,),
}


def _of_item(kind: str) -> Table:
    kinds = _ITEMS[kind]
    described = frozenset(name.removesuffix("_") for name in _fields(*kinds))
    title = f"`input[]` of `/v1/responses`, of type `{kind}`"
    return Table(title, described, ITEMS[kind], ITEMS_NO_EFFECT[kind], ITEMS_NOT_SERVED[kind])


RESPONSE_TABLES = tuple(
    replace(table, notes=NOTES | NOTES_OF_RESPONSES)
    for table in (
        of_body(
            "`/v1/responses`",
            ResponseBody,
            _RESPONSES.ResponseCreateParamsNonStreaming,
            _RESPONSES.ResponseCreateParamsStreaming,
        ),
        of_body("`/v1/responses/input_tokens`", CountBody, responses.InputTokenCountParams),
        of_body("`reasoning` of `/v1/responses`", Reasoning, shared_params.Reasoning),
        of_body("`text` of `/v1/responses`", TextConfig, responses.ResponseTextConfigParam),
        of_body("`tools[]` of `/v1/responses`", FunctionTool, responses.FunctionToolParam),
        of_body(
            "`stream_options` of `/v1/responses`", ResponseStreamOptions, _RESPONSES.StreamOptions
        ),
        *map(_of_item, ITEMS),
        of_body(
            "`/v1/conversations`",
            ConversationBody,
            conversation_create_params.ConversationCreateParams,
        ),
    )
)
TABLES = (*CHAT_TABLES, *RESPONSE_TABLES)


def undescribed(tables: Iterable[Table] = TABLES) -> Mapping[str, frozenset[str]]:
    """By table, fields that the package describes and the gateway does not know."""
    return {t.title: t.described - t.known for t in tables if t.described - t.known}


def page(introduction: str = INTRODUCTION, tables: Iterable[Table] = TABLES) -> str:
    return "\n".join([introduction, *(f"## {t.title}\n\n{_rows(t)}\n" for t in tables)])


def _rows(table: Table) -> str:
    rows = ["| field | of | | |", "|---|---|---|---|"]
    rows += [_row(table, name) for name in sorted(table.known)]
    return "\n".join(rows)


def _row(table: Table, name: str) -> str:
    whose = table.owner if name in table.described else "Headrace" if name in OURS else table.others
    if name in table.not_served:
        rule = table.not_served[name]
        neutral = ", ".join(f"`{json.dumps(value)}`" for value in rule.neutral)
        but = f"; taken: {neutral}" if neutral else ""
        return f"| `{name}` | {whose} | refused | {_sentence(rule.why + but)} |"
    if name in table.no_effect:
        return f"| `{name}` | {whose} | no effect | {_sentence(table.no_effect[name])} |"
    return f"| `{name}` | {whose} | served | {table.notes.get(name, '')} |"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
