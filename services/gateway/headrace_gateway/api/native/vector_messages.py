"""Pure room: calls for vectors as headrace.v1's messages, and as their JSON."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Usage
from headrace.v1.embeddings_pb2 import (
    EmbedInput,
    EmbedRequest,
    EmbedResponse,
    Ranking,
    RerankRequest,
    RerankResponse,
    Vector,
)
from headrace_gateway.api.bodies.vectors import texts, vector_json
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.native.convert import optional, optional_s
from headrace_gateway.base.calls import Call, wants_cache
from headrace_gateway.base.cooperative import cooperatively
from headrace_gateway.request.generation_request import AnyInput, Text, TokenIds, VectorRequest
from headrace_gateway.request.vectors import values_of
from headrace_gateway.submit.embedding import Embedded, Query, Ranked


def vector_request(request: EmbedRequest, call: Call) -> VectorRequest:
    inputs = [_input(each, f"inputs[{i}]") for i, each in enumerate(request.inputs)]
    return _requested(request, call, inputs, name="inputs")


def rerank_query(request: RerankRequest, call: Call) -> Query:
    documents = texts(request.documents, "documents")
    return Query(_requested(request, call, documents, name="documents"), request.query)


async def embed_response(embedded: Embedded, request_id: str) -> EmbedResponse:
    response = EmbedResponse(
        request_id=request_id,
        model=embedded.card.model,
        usage=Usage(prompt_tokens=embedded.prompt_tokens),
    )
    async for vector in cooperatively(embedded.vectors):
        response.vectors.append(Vector(values=values_of(vector)))
    return response


async def send_embeddings(embedded: Embedded, reply: Reply) -> None:
    """Send an `EmbedResponse` as JSON by hand: `json_format` takes a hundred times as long."""
    head = to_json({"request_id": reply.request_id, "model": embedded.card.model})
    entries = (b'{"values":%b}' % vector_json(vector) for vector in embedded.vectors)
    usage = to_json({"prompt_tokens": embedded.prompt_tokens, "output_tokens": 0})
    await reply.send_list(head[:-1] + b',"vectors":[', entries, b'],"usage":%b}' % usage)


def rerank_response(ranked: Ranked, request_id: str, top_n: int | None) -> RerankResponse:
    best = ranked.rankings[:top_n]
    return RerankResponse(
        request_id=request_id,
        model=ranked.card.model,
        rankings=(Ranking(index=index, relevance=relevance) for index, relevance in best),
        usage=Usage(prompt_tokens=ranked.prompt_tokens),
    )


def _input(each: EmbedInput, field: str) -> AnyInput:
    if each.text and each.token_ids:
        raise InvalidRequest(f"{field} has both text and token_ids; set one", field=field)
    if each.token_ids:
        return TokenIds(list(each.token_ids), f"{field}.token_ids")
    return Text(each.text, f"{field}.text")


def _requested(
    request: EmbedRequest | RerankRequest, call: Call, inputs: Sequence[AnyInput], *, name: str
) -> VectorRequest:
    return VectorRequest(
        request_id=call.request_id,
        model=request.model,
        inputs=inputs,
        priority=request.priority,
        truncate_tokens=optional(request, "truncate_tokens"),
        timeout_s=optional_s(request, "timeout"),
        patience_s=optional_s(request, "patience"),
        time_remaining_s=call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        cached=wants_cache(call),
        names={"inputs": name},
    )
