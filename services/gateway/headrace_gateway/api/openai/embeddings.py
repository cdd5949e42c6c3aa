"""/v1/embeddings, and /v1/rerank as Jina and vLLM have it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

from pydantic_core import to_json

from headrace_gateway.api.bodies.vectors import (
    EmbeddingsBody,
    RerankBody,
    embeddings_request,
    rerank_request,
)
from headrace_gateway.api.compat.cohere import ranked_documents
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.base.cooperative import cooperatively, joined_chunks
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.vectors import values_of
from headrace_gateway.submit.embedding import Embedded, Query


@endpoint(EmbeddingsBody)
async def embed(http: HttpCall, body: EmbeddingsBody) -> None:
    request = embeddings_request(body, http.call)
    async with http.services.embedding.embedded(
        request, dimensions=body.dimensions, prompt_name=body.prompt_name
    ) as embedded:
        parts = _embeddings_json(embedded, as_text=body.encoding_format == "base64")
        await http.reply.send_pieces(joined_chunks(parts))


@endpoint(RerankBody)
async def rerank(http: HttpCall, body: RerankBody) -> None:
    check_top_n(body.top_n)
    query = Query(rerank_request(body, http.call), body.query)
    documents = None if body.return_documents is False else body.documents
    async with http.services.embedding.ranked(query) as ranked:
        await http.reply.send_json(
            {
                "id": http.call.request_id,
                "model": ranked.card.model,
                "results": ranked_documents(ranked, body.top_n, documents),
                "usage": _usage(ranked.prompt_tokens),
            }
        )


async def _embeddings_json(embedded: Embedded, *, as_text: bool) -> AsyncIterator[bytes]:
    yield b'{"object":"list","data":['
    async for index, vector in cooperatively(enumerate(embedded.vectors)):
        printed = (
            b'"' + base64.b64encode(vector) + b'"'
            if as_text
            else to_json(values_of(vector).tolist())
        )
        comma = b"," if index else b""
        yield comma + b'{"object":"embedding","index":%d,"embedding":%s}' % (index, printed)
    tail = {"model": embedded.card.model, "usage": _usage(embedded.prompt_tokens)}
    yield b"]," + json.dumps(tail).encode()[1:]


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
