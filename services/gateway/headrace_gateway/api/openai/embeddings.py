"""/v1/embeddings and /v1/rerank: bodies in, one JSON body out."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

from pydantic_core import to_json

from headrace_gateway.api.bodies.reading import read_body
from headrace_gateway.api.bodies.vectors import (
    EmbeddingsBody,
    RerankBody,
    embeddings_request,
    rerank_request,
)
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import OpenAIErrorFormat
from headrace_gateway.api.http.reply import Reply, handle_errors
from headrace_gateway.base.calls import Context, call_of
from headrace_gateway.base.cooperative import cooperatively, joined_chunks
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.vectors import values_of
from headrace_gateway.submit.embedding import Embedded, Embedding, Query, Ranked
from headrace_gateway.submit.submitter import Submitter


class VectorHandlers:
    def __init__(self, submitter: Submitter, embedding: Embedding, limits: GatewaySettings) -> None:
        self._submitter, self._embedding, self._limits = submitter, embedding, limits

    async def embeddings(self, data: bytes, context: Context) -> None:
        call = call_of(context)
        with CallCounter("openai") as counter:
            reply = Reply(context, OpenAIErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = read_body(EmbeddingsBody, data, call, self._limits, reply)
                counter.model = self._submitter.known(body.model)
                wanted, prompt_name = embeddings_request(body, call), body.prompt_name
                async with self._embedding.embedded(
                    wanted, dimensions=body.dimensions, prompt_name=prompt_name
                ) as embedded:
                    parts = _embeddings_json(embedded, as_text=body.encoding_format == "base64")
                    await reply.send_pieces(joined_chunks(parts))

    async def rerank(self, data: bytes, context: Context) -> None:
        call = call_of(context)
        with CallCounter("openai") as counter:
            reply = Reply(context, OpenAIErrorFormat(), call.request_id, counter)
            async with handle_errors(reply):
                body = read_body(RerankBody, data, call, self._limits, reply)
                counter.model = self._submitter.known(body.model)
                check_top_n(body.top_n)
                query = Query(rerank_request(body, call), body.query)
                async with self._embedding.ranked(query) as ranked:
                    answer = _rankings(body, ranked, call.request_id)
                    await reply.send(json.dumps(answer).encode())


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


def _rankings(body: RerankBody, ranked: Ranked, request_id: str) -> dict[str, object]:
    with_documents = body.return_documents is not False
    results: list[dict[str, object]] = []
    for index, relevance in ranked.rankings[: body.top_n]:
        result: dict[str, object] = {"index": index, "relevance_score": relevance}
        if with_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    return {
        "id": request_id,
        "model": ranked.card.model,
        "results": results,
        "usage": _usage(ranked.prompt_tokens),
    }


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
