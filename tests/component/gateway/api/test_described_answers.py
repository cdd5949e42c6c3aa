"""Every kind of answer is as the OpenAPI document says, and as OpenAI's and Anthropic's packages
read it, in strict mode: what these do not know is in our documentation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic.types
import grpc
import openai.types
import openai.types.chat
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from helpers.described import faults
from helpers.fuzzed import MESSAGES, SCHEMA, TOOL, VALID
from helpers.fuzzed_api import answered, fuzzed_api
from helpers.fuzzed_mesh import ITEM

CHAT, TEXT = {"model": "valley", "messages": MESSAGES}, {"model": "valley", "prompt": "Hello"}
ASKED = {"model": "valley", "input": [ITEM], "store": False}
CALLS: dict[str, list[dict[str, Any]]] = {
    **{path: bodies for path, bodies in VALID.items() if not path.startswith("/v2/models")},
    "/v1/chat/completions": [
        *VALID["/v1/chat/completions"],
        CHAT | {"tools": [TOOL], "tool_choice": "required"},
        CHAT | {"tools": [TOOL], "stream": True, "logprobs": True, "top_logprobs": 1},
        CHAT | {"stream": True, "stream_options": {"include_usage": True}},
        CHAT | {"prompt_logprobs": 1, "return_token_ids": True},
    ],
    "/v1/completions": [*VALID["/v1/completions"], TEXT | {"stream": True, "logprobs": 1}],
    "/v1/embeddings": [*VALID["/v1/embeddings"], {"model": "sense", "input": "a"}],
    "/v1/responses": [
        ASKED,
        ASKED | {"stream": True},
        ASKED | {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        ASKED
        | {"stream": True, "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}]},
        ASKED | {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
    ],
    "/v1/responses/input_tokens": [ASKED],
    "/v1/conversations": [{"items": [ITEM], "metadata": {"a": "b"}}, {}],
}
BROKEN = {"model": 7}
KINDS: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (
        openai.types.chat.ChatCompletion,
        openai.types.chat.ChatCompletionChunk,
    ),
    "/v1/completions": (openai.types.Completion, openai.types.Completion),
    "/v1/embeddings": (openai.types.CreateEmbeddingResponse, None),
    "/v1/moderations": (openai.types.ModerationCreateResponse, None),
    "/v1/responses": (Response, ResponseStreamEvent),
    "/v1/messages": (anthropic.types.Message, anthropic.types.RawMessageStreamEvent),
    "/v1/messages/count_tokens": (anthropic.types.MessageTokensCount, None),
}
"""What the packages read a whole answer and an event as."""
OURS = {
    *("reasoning", "reasoning_content", "token_ids", "prompt_token_ids", "prompt_logprobs"),
}
"""Fields that docs/openai_fields.md adds to OpenAI's."""


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    async with fuzzed_api() as api, grpc.aio.insecure_channel(api.address) as opened:
        yield opened


@pytest.mark.parametrize("path", CALLS)
async def test_answers_and_events_are_as_described(channel: grpc.aio.Channel, path: str) -> None:
    for body in CALLS[path]:
        status, kind, answer = await answered(channel, path, json.dumps(body).encode())
        assert status == 200, (body, answer)
        assert faults(path, "post", status, kind, answer) == [], (body, answer[:2000])
        for value, model in _read_by_packages(path, kind, answer):
            assert set(_unknown(_strict(model, value))) <= OURS, (body, value)


@pytest.mark.parametrize("path", CALLS)
async def test_errors_are_as_described(channel: grpc.aio.Channel, path: str) -> None:
    for body in (BROKEN, {"model": "no", "input": 7, "messages": 7}):
        status, kind, answer = await answered(channel, path, json.dumps(body).encode())
        if status != 200:
            assert faults(path, "post", status, kind, answer) == [], answer


def _read_by_packages(path: str, kind: str, answer: bytes) -> Iterator[tuple[Any, Any]]:
    whole, event = KINDS.get(path, (None, None))
    if whole is not None and kind == "application/json":
        value = json.loads(answer)
        # The package decodes base64 before its model has the vectors.
        if '"embedding":"' not in answer.decode():
            yield _without_nulls(value), whole
    elif event is not None:
        for line in answer.decode().split("\n"):
            if line.startswith("data: {") and '"type":"ping"' not in line:
                yield _without_nulls(json.loads(line.removeprefix("data: "))), event


def _without_nulls(value: Any) -> Any:
    """Fill in what a completion of OpenAI's has as null too, and what its package does not: the
    reason within a stream, and what precedes the first token of a prompt."""
    for choice in value.get("choices", []) if value.get("object") == "text_completion" else []:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
        if logprobs := choice["logprobs"]:
            logprobs["token_logprobs"] = [each or 0.0 for each in logprobs["token_logprobs"]]
            logprobs["top_logprobs"] = [each or {} for each in logprobs["top_logprobs"]]
    return value


def _strict(model: Any, value: Any) -> Any:
    return TypeAdapter(model).validate_json(json.dumps(value), strict=True)


def _unknown(value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from _unknown(each)
