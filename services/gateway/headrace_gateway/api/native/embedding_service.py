"""EmbeddingService: vectors of texts, and documents by relevance, typed."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.rpc.channels import MAX_MESSAGE_BYTES
from headrace.v1.embeddings_pb2 import (
    EmbedRequest,
    EmbedResponse,
    RerankRequest,
    RerankResponse,
)
from headrace.v1.embeddings_pb2_grpc import EmbeddingServiceServicer
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.native.grpc_errors import abort_on_error
from headrace_gateway.api.native.vector_messages import (
    embed_response,
    optional,
    rerank_query,
    rerank_response,
    vector_request,
)
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter


class EmbeddingService(EmbeddingServiceServicer):
    def __init__(self, submitter: Submitter, embedding: Embedding) -> None:
        self._submitter, self._embedding = submitter, embedding

    async def Embed(self, request: EmbedRequest, context: Context) -> EmbedResponse:
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            call = call_of(context)
            response = await abort_on_error(context, self._embed(request, call), counter)
            counter.finish()
            return response

    async def Rerank(self, request: RerankRequest, context: Context) -> RerankResponse:
        with CallCounter("native", self._submitter.known(request.model)) as counter:
            call = call_of(context)
            response = await abort_on_error(context, self._rerank(request, call), counter)
            counter.finish()
            return response

    async def _embed(self, request: EmbedRequest, call: Call) -> EmbedResponse:
        async with self._embedding.embedded(
            vector_request(request, call),
            dimensions=optional(request, "dimensions"),
            prompt_name=request.prompt_name if request.HasField("prompt_name") else None,
        ) as embedded:
            response = await embed_response(embedded, call.request_id)
        if (size := response.ByteSize()) > MAX_MESSAGE_BYTES:
            raise InvalidRequest(
                f"the answer has {size} bytes; a message may have {MAX_MESSAGE_BYTES}. Ask for"
                " fewer inputs at once",
                field="inputs",
            )
        return response

    async def _rerank(self, request: RerankRequest, call: Call) -> RerankResponse:
        top_n = optional(request, "top_n")
        check_top_n(top_n)
        async with self._embedding.ranked(rerank_query(request, call)) as ranked:
            return rerank_response(ranked, call.request_id, top_n)
