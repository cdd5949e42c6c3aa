"""Answers the messages of headrace.v1 for one model, as a gateway does, without a network."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from headrace.auth.caller import Caller
from headrace.errors import Unsupported
from headrace.v1.embeddings_pb2 import EmbedRequest, EmbedResponse, RerankRequest, RerankResponse
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace_gateway.api.native.convert import generate_request, optional
from headrace_gateway.api.native.messages import delta, finish, started
from headrace_gateway.api.native.vector_messages import (
    embed_response,
    rerank_query,
    rerank_response,
    vector_request,
)
from headrace_gateway.base.calls import Call, new_request_id
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.request.generation import Admission
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter
from headrace_local.loading import LocalLimits, OneModel

_OF_A_MESH = {"detached", "patience", "priority"}
Events = AsyncGenerator[StreamGenerateResponse, None]


class LocalService:
    """Every call raises HeadraceError as a mesh's does; its cancellation cancels the request."""

    def __init__(self, model: OneModel, admission: Admission) -> None:
        limits = LocalLimits()
        self._submitter = Submitter(model, admission, limits)
        self._embedding = Embedding(model, admission, limits)

    async def stream(
        self, request: GenerateRequest
    ) -> AsyncGenerator[StreamGenerateResponse, None]:
        """Yield `started`, deltas and `finish`."""
        async with await self._open(request) as answer:
            yield started(answer.request)
            async for event in _read(answer):
                yield event
            await answer.settle()
            yield finish(answer.usage())

    async def _open(self, request: GenerateRequest) -> Answer:
        for name in _OF_A_MESH & {field.name for field, _ in request.ListFields()}:
            raise Unsupported(f"{name} needs a mesh: one model has no lanes", field=name)
        answer, _ = await self._submitter.open(generate_request(request, _call(), stream=True))
        return answer

    async def embed(self, request: EmbedRequest) -> EmbedResponse:
        call = _call()
        async with self._embedding.embedded(
            vector_request(request, call),
            dimensions=optional(request, "dimensions"),
            prompt_name=optional(request, "prompt_name"),
        ) as embedded:
            return await embed_response(embedded, call.request_id)

    async def rerank(self, request: RerankRequest) -> RerankResponse:
        call, top_n = _call(), optional(request, "top_n")
        check_top_n(top_n)
        async with self._embedding.ranked(rerank_query(request, call)) as ranked:
            return rerank_response(ranked, call.request_id, top_n)


async def _read(answer: Answer) -> Events:
    try:
        async for deltas in answer:
            for each in deltas:
                yield delta(each)
            if answer.complete:
                return
    except GenerationFailed as failed:
        await answer.settle()
        raise failed.error from failed


def _call() -> Call:
    return Call(Caller(), new_request_id(), None, {})
