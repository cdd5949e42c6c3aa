"""/tokenize and /detokenize, as vLLM and llama.cpp have them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from headrace.v1.common_pb2 import ModelTask, SamplingParameters
from headrace_gateway.api.bodies.convert import chat_request
from headrace_gateway.api.bodies.generation import ChatBody
from headrace_gateway.api.bodies.json_objects import are_token_ids
from headrace_gateway.api.bodies.strict_body import OptionalModel, RequestBody
from headrace_gateway.api.bodies.unsupported_fields import TOKENIZE_CONTENT
from headrace_gateway.api.http.endpoint import HttpCall, endpoint, has_member
from headrace_gateway.checks.validation import check_vocabulary
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.request.generation_request import GenerationRequest, Text


class TokenizePromptBody(RequestBody):
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


class TokenizeContentBody(RequestBody):
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


class DetokenizeBody(RequestBody):
    model: OptionalModel = ""
    tokens: Annotated[list[int], PlainValidator(_token_ids)]


@endpoint(DetokenizeBody)
async def detokenize(http: HttpCall, body: DetokenizeBody) -> None:
    served = http.services.catalog.get(body.model, http.call.caller)
    check_vocabulary(body.tokens, served.card, "tokens")
    text = await served.tokenizer.spelled_out(body.tokens)
    await http.reply.send_json({"prompt": text, "content": text})


@endpoint(TokenizePromptBody)
async def tokenize_prompt(http: HttpCall, body: TokenizePromptBody) -> None:
    special = body.add_special_tokens is not False
    served, token_ids = await _encode(http, body.model, Text(body.prompt), special=special)
    await http.reply.send_json(_counted(served, token_ids, with_names=bool(body.return_token_strs)))


@endpoint(TokenizeChatBody, tasks=(ModelTask.MODEL_TASK_GENERATE,), fits=has_member("messages"))
async def tokenize_chat(http: HttpCall, body: TokenizeChatBody) -> None:
    request = chat_request(body, http.call)
    served, token_ids = await http.services.submitter.encoded(request)
    await http.reply.send_json(_counted(served, token_ids, with_names=bool(body.return_token_strs)))


@endpoint(TokenizeContentBody, fits=has_member("content"))
async def tokenize_content(http: HttpCall, body: TokenizeContentBody) -> None:
    text, special = Text(body.content, "content"), bool(body.add_special)
    served, token_ids = await _encode(http, body.model, text, special=special)
    tokens: list[Any] = token_ids
    if body.with_pieces:
        texts = served.tokenizer.spelling
        tokens = [{"id": each, "piece": _piece(texts[each].octets)} for each in token_ids]
    await http.reply.send_json({"tokens": tokens})


async def _encode(
    http: HttpCall, model: str, text: Text, *, special: bool
) -> tuple[ServedModel, list[int]]:
    request = GenerationRequest(
        http.call.request_id,
        model,
        text,
        SamplingParameters(),
        caller=http.call.caller,
        adds_special_tokens=special,
    )
    return await http.services.submitter.encoded(request)


def _counted(served: ServedModel, token_ids: list[int], *, with_names: bool) -> dict[str, object]:
    return {
        "count": len(token_ids),
        "max_model_len": served.card.context_tokens,
        "tokens": token_ids,
        "token_strs": served.tokenizer.names(token_ids) if with_names else None,
    }


def _piece(octets: bytes) -> str | list[int]:
    """Return a token's text, or its bytes where they are no whole characters."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return list(octets)
