"""The API over two models that can do everything, for bodies that nobody should send."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.rpc.status import from_rpc_error
from headrace.v1.anthropic_pb2_grpc import AnthropicServiceStub
from headrace.v1.common_pb2 import ModelTask
from headrace.v1.openai_pb2_grpc import OpenAIServiceStub
from headrace.v1.responses_pb2_grpc import ResponsesServiceStub
from headrace.v1.rest_pb2 import RestModelRequest
from headrace.v1.rest_pb2_grpc import RestServiceStub
from headrace_gateway.request.generation import ChoiceEnded, ValidRequest
from helpers.api_scripts import says
from helpers.fuzzed import TYPED
from helpers.running_api import CARD, RunningApi, running_api
from helpers.scripted_admission import STOP, Script, ScriptedAdmission
from helpers.tiny_tokenizers import word_pieces

WIDTH = 4


def _says_or_embeds(request: ValidRequest) -> Script:
    if not request.inputs:
        return says(request)
    vector = struct.pack(f"<{WIDTH}f", *range(WIDTH))
    return [[ChoiceEnded(choice, STOP, vector) for choice in range(request.n)]]


@asynccontextmanager
async def fuzzed_api() -> AsyncIterator[RunningApi]:
    """ "valley" is held to forms and calls tools; "sense" makes vectors, "sorts" logits."""
    valley, sense, sorts = ModelCard(), ModelCard(), ModelCard()
    valley.CopyFrom(CARD)
    valley.capabilities.grammar = True
    valley.tool_parser = "hermes"
    sense.CopyFrom(CARD)
    sense.model, sense.tokenizer_digest, sense.max_slots = "sense", "t2", 256
    sense.vocabulary_size = word_pieces().get_vocab_size()
    facts = VectorFacts(task=ModelTask.MODEL_TASK_EMBED, dimensions=WIDTH)
    sense.vectors.CopyFrom(facts)
    sorts.CopyFrom(sense)
    sorts.model = "sorts"
    sorts.vectors.task = ModelTask.MODEL_TASK_CLASSIFY
    sorts.vectors.labels.extend(["toxic", "hate", "insult", "neutral"])
    async with running_api(ScriptedAdmission(_says_or_embeds), valley, sense, sorts) as running:
        yield running


async def posted(channel: grpc.aio.Channel, path: str, data: bytes) -> tuple[int, bytes]:
    """The HTTP status and body that Envoy would pass on."""
    status, _, answer = await answered(channel, path, data)
    return status, answer


async def answered(channel: grpc.aio.Channel, path: str, data: bytes) -> tuple[int, str, bytes]:
    """The same, with the content type between them."""
    body = HttpBody(data=data, content_type="application/json")
    call = _call(channel, path, body)
    parts = [part async for part in call]
    head = dict(await call.initial_metadata())
    kind = parts[0].content_type if parts else ""
    return int(head.get("x-hr-status", "200")), kind, b"".join(part.data for part in parts)


def _call(channel: grpc.aio.Channel, path: str, body: HttpBody) -> Any:
    openai, rest = OpenAIServiceStub(channel), RestServiceStub(channel)
    responses = ResponsesServiceStub(channel)
    anthropic = AnthropicServiceStub(channel)
    of_openai = {
        "/v1/chat/completions": openai.ChatCompletions,
        "/v1/completions": openai.Completions,
        "/v1/embeddings": openai.Embeddings,
        "/v1/rerank": openai.Rerank,
        "/v2/rerank": openai.RerankV2,
        "/v1/score": openai.Score,
        "/embed": openai.Embed,
        "/v1/responses": responses.CreateResponse,
        "/v1/responses/input_tokens": responses.CountInputTokens,
        "/v1/conversations": responses.CreateConversation,
        "/v1/messages": anthropic.CreateMessage,
        "/v1/messages/count_tokens": anthropic.CountMessageTokens,
        "/v1/classify": openai.Classify,
        "/v1/pooling": openai.Pooling,
        "/predict": openai.Predict,
        "/similarity": openai.Similarity,
        "/v1/moderations": openai.CreateModeration,
        "/tokenize": openai.Tokenize,
        "/detokenize": openai.Detokenize,
    }
    if path in of_openai:
        return of_openai[path](body)
    model, _, verb = path.removeprefix("/v2/models/").partition(":")
    of_rest = {
        "generate": rest.Generate,
        "streamGenerate": rest.StreamGenerate,
        "tokenize": rest.Tokenize,
        "embed": rest.Embed,
        "rerank": rest.Rerank,
    }
    return of_rest[verb](RestModelRequest(model=model, body=body))


async def told(channel: grpc.aio.Channel, path: str, data: bytes) -> tuple[str, str]:
    """How the typed call of a path answers these bytes: gRPC's code, and our reason."""
    method, _ = TYPED[path]
    ask: Any = channel.unary_stream(method)  # without serializers, bytes go as they are
    call = ask(data)
    try:
        _ = [part async for part in call]
    except grpc.aio.AioRpcError as error:
        return error.code().name, from_rpc_error(error).reason
    return "OK", ""
