"""EmbeddingService: vectors of texts, and documents by relevance, typed."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headrace.errors import InvalidRequest
from headrace.rpc.channels import MAX_MESSAGE_BYTES
from headrace.v1.embeddings_pb2 import (
    EmbedRequest,
    EmbedResponse,
    RerankRequest,
    RerankResponse,
)
from headrace.v1.embeddings_pb2_grpc import EmbeddingServiceServicer
from headrace_gateway.api.http.services import ApiServicer, ApiServices
from headrace_gateway.api.native.convert import optional
from headrace_gateway.api.native.grpc_errors import counted
from headrace_gateway.api.native.vector_messages import (
    embed_response,
    rerank_query,
    rerank_response,
    vector_request,
)
from headrace_gateway.base.calls import Call
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.submit.embedding import Embedded


class EmbeddingService(ApiServicer, EmbeddingServiceServicer):
    @counted
    async def Embed(self, request: EmbedRequest, call: Call) -> EmbedResponse:
        async with embedded_inputs(self.services, request, call) as embedded:
            response = await embed_response(embedded, call.request_id)
        if (size := response.ByteSize()) > MAX_MESSAGE_BYTES:
            raise InvalidRequest(
                f"the answer has {size} bytes; a message may have {MAX_MESSAGE_BYTES}. Send"
                " fewer inputs at once",
                field="inputs",
            )
        return response

    @counted
    async def Rerank(self, request: RerankRequest, call: Call) -> RerankResponse:
        return await rerank(self.services, request, call)


def embedded_inputs(
    services: ApiServices, request: EmbedRequest, call: Call
) -> AbstractAsyncContextManager[Embedded]:
    return services.embedding.embedded(
        vector_request(request, call),
        dimensions=optional(request, "dimensions"),
        prompt_name=optional(request, "prompt_name"),
    )


async def rerank(services: ApiServices, request: RerankRequest, call: Call) -> RerankResponse:
    top_n = optional(request, "top_n")
    check_top_n(top_n)
    async with services.embedding.ranked(rerank_query(request, call)) as ranked:
        return rerank_response(ranked, call.request_id, top_n)
