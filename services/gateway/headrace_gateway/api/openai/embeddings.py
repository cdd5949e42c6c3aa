"""/v1/embeddings, and /v1/rerank as Jina and vLLM have it."""

from __future__ import annotations

import base64
import json

from headrace.v1.common_pb2 import ModelTask, Usage
from headrace_gateway.api.bodies.vectors import (
    EmbeddingsBody,
    RerankBody,
    lengthens,
    text_inputs,
    texts,
    vector_json,
    vector_request,
)
from headrace_gateway.api.compat.cohere import ranked_documents
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.vectors import unit
from headrace_gateway.submit.embedding import Query


@endpoint(EmbeddingsBody, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def embed(http: HttpCall, body: EmbeddingsBody) -> None:
    request = vector_request(body, http.call, text_inputs(body.input, "input"), name="input")
    # Why first: what is refused costs its caller nothing.
    card = http.services.catalog.get(body.model, http.call.caller).card
    is_unit = lengthens(card, body.normalize)
    async with http.services.embedding.embedded(
        request, dimensions=body.dimensions, prompt_name=body.prompt_name
    ) as embedded:
        vectors = map(unit, embedded.vectors) if is_unit else embedded.vectors
        write = _base64 if body.encoding_format == "base64" else vector_json
        entries = (
            b'{"object":"embedding","index":%d,"embedding":%s}' % (index, write(vector))
            for index, vector in enumerate(vectors)
        )
        end = {"model": embedded.card.model, "usage": _usage(embedded.prompt_tokens)}
        start = b'{"object":"list","data":['
        http.reply.usage = Usage(prompt_tokens=embedded.prompt_tokens)
        await http.reply.send_list(start, entries, b"]," + json.dumps(end).encode()[1:])


@endpoint(RerankBody, tasks=RELEVANCE)
async def rerank(http: HttpCall, body: RerankBody) -> None:
    check_top_n(body.top_n)
    documents = texts(body.documents, "documents")
    request = vector_request(body, http.call, documents, name="documents")
    returned = None if body.return_documents is False else body.documents
    async with http.services.embedding.ranked(Query(request, body.query)) as ranked:
        await http.reply.send_json(
            {
                "id": http.call.request_id,
                "model": ranked.card.model,
                "results": ranked_documents(ranked, body.top_n, returned),
                "usage": _usage(ranked.prompt_tokens),
            }
        )


def _base64(vector: bytes) -> bytes:
    return b'"%s"' % base64.b64encode(vector)


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
