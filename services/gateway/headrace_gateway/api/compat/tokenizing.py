"""/tokenize and /detokenize, as vLLM and llama.cpp have them."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import ModelTask, Priority, SamplingParameters
from headrace_gateway.api.bodies.convert import chat_request
from headrace_gateway.api.bodies.generation import ChatBody
from headrace_gateway.api.bodies.json_objects import are_token_ids
from headrace_gateway.api.bodies.strict_body import StrictBody
from headrace_gateway.api.bodies.unsupported_fields import TOKENIZE_CONTENT
from headrace_gateway.api.compat.endpoint import (
    ApiServices,
    HttpCall,
    OptionalModel,
    member_pattern,
)
from headrace_gateway.api.http.errors import OpenAIErrorFormat
from headrace_gateway.base.calls import Context
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.request.generation_request import GenerationRequest, Text

_MESSAGES, _CONTENT = member_pattern(b"messages"), member_pattern(b"content")


class TokenizePromptBody(StrictBody):
    """vLLM's, for plain text."""

    model: OptionalModel = ""
    prompt: str
    add_special_tokens: bool | None = None
    """Unset: they are added."""
    return_token_strs: bool | None = None


class TokenizeChatBody(ChatBody):
    """vLLM's, for a conversation; what else a chat takes may stay in it."""

    model: OptionalModel = ""
    return_token_strs: bool | None = None


class TokenizeContentBody(StrictBody):
    """llama.cpp's."""

    UNSUPPORTED_FIELDS = TOKENIZE_CONTENT

    model: OptionalModel = ""
    content: str
    add_special: bool | None = None
    """Unset: no special tokens are added."""
    with_pieces: bool | None = None


def _token_ids(value: object) -> list[int]:
    if isinstance(value, list) and are_token_ids(value):
        return value
    raise PydanticCustomError("tokens", "should be a list of token ids")


class DetokenizeBody(StrictBody):
    model: OptionalModel = ""
    tokens: Annotated[list[int], PlainValidator(_token_ids)]


async def tokenize(serving: ApiServices, data: bytes, context: Context) -> None:
    async with serving.call(context, OpenAIErrorFormat()) as http:
        if _MESSAGES.search(data):
            answer = await _chat(serving, data, http)
        elif _CONTENT.search(data):
            answer = await _content(serving, data, http)
        else:
            answer = await _prompt(serving, data, http)
        await http.reply.send(json.dumps(answer).encode())


async def detokenize(serving: ApiServices, data: bytes, context: Context) -> None:
    async with serving.call(context, OpenAIErrorFormat()) as http:
        body = serving.read(DetokenizeBody, data, http)
        served = serving.catalog.get(serving.model(body.model, http))
        most = served.card.vocabulary_size
        if (highest := max(body.tokens, default=0)) >= most:
            raise InvalidRequest(
                f"tokens has token id {highest}; model {served.card.model} has ids 0 to {most - 1}",
                field="tokens",
            )
        text = await served.tokenizer.spelled_out(body.tokens)
        await http.reply.send(json.dumps({"prompt": text, "content": text}).encode())


async def _prompt(serving: ApiServices, data: bytes, http: HttpCall) -> dict[str, object]:
    body = serving.read(TokenizePromptBody, data, http)
    served, token_ids = await _encoded(
        serving, body.model, Text(body.prompt), http, special=body.add_special_tokens is not False
    )
    return _counted(served, token_ids, with_names=bool(body.return_token_strs))


async def _chat(serving: ApiServices, data: bytes, http: HttpCall) -> dict[str, object]:
    body = serving.read(TokenizeChatBody, data, http)
    model = serving.model(body.model, http, ModelTask.MODEL_TASK_GENERATE)
    wanted = dataclasses.replace(chat_request(body, http.call), model=model)
    served, token_ids = await serving.submitter.encoded(wanted)
    return _counted(served, token_ids, with_names=bool(body.return_token_strs))


async def _content(serving: ApiServices, data: bytes, http: HttpCall) -> dict[str, object]:
    body = serving.read(TokenizeContentBody, data, http)
    served, token_ids = await _encoded(
        serving, body.model, Text(body.content, "content"), http, special=bool(body.add_special)
    )
    if not body.with_pieces:
        return {"tokens": token_ids}
    spelling = served.tokenizer.spelling
    return {"tokens": [{"id": each, "piece": _piece(spelling[each].octets)} for each in token_ids]}


async def _encoded(
    serving: ApiServices, model: str, text: Text, http: HttpCall, *, special: bool
) -> tuple[ServedModel, list[int]]:
    wanted = GenerationRequest(
        http.call.request_id,
        serving.model(model, http),
        text,
        SamplingParameters(),
        Priority.PRIORITY_UNSPECIFIED,
        adds_special_tokens=special,
    )
    return await serving.submitter.encoded(wanted)


def _counted(served: ServedModel, token_ids: list[int], *, with_names: bool) -> dict[str, object]:
    return {
        "count": len(token_ids),
        "max_model_len": served.card.context_tokens,
        "tokens": token_ids,
        "token_strs": served.tokenizer.names(token_ids) if with_names else None,
    }


def _piece(octets: bytes) -> str | list[int]:
    """As text, or its bytes where they are no whole characters."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return list(octets)
