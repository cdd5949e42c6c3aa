"""/embed, and /rerank with `texts`, as text-embeddings-inference has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from pydantic import PlainValidator

from headrace.errors import Unsupported
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.strict_body import ENTRIES, Count, OptionalModel
from headrace_gateway.api.bodies.unsupported_fields import TEI_EMBED, TEI_RERANK
from headrace_gateway.api.bodies.vectors import (
    VectorBody,
    inputs_of,
    text_inputs,
    texts,
    vector_json,
    vector_request,
)
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint, has_member
from headrace_gateway.api.http.errors import TEI_ERRORS
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    VectorRequest,
)
from headrace_gateway.request.vectors import unit
from headrace_gateway.submit.embedding import Query

_HAS_TEXTS, _HAS_DOCUMENTS = has_member("texts"), has_member("documents")


class TeiBody(VectorBody):
    model: OptionalModel = ""
    truncate: bool | None = None
    """Cut what is too long, which is refused otherwise."""


class EmbedBody(TeiBody):
    UNSUPPORTED_FIELDS = TEI_EMBED

    inputs: Annotated[list[str] | list[list[int]], PlainValidator(inputs_of)]
    normalize: bool | None = None
    """Unset: vectors have length 1."""
    dimensions: Count | None = None
    prompt_name: str | None = None


class RerankTextsBody(TeiBody):
    UNSUPPORTED_FIELDS = TEI_RERANK

    query: str
    texts: Annotated[list[str], ENTRIES]
    return_text: bool | None = None


def _is_rerank_of_texts(data: bytes) -> bool:
    """Return whether a body of /rerank has `texts`, which are `documents` in the other API."""
    return _HAS_TEXTS(data) and not _HAS_DOCUMENTS(data)


@endpoint(EmbedBody, errors=TEI_ERRORS, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def embed(http: HttpCall, body: EmbedBody) -> None:
    request = _request(body, http, text_inputs(body.inputs, "inputs"), "inputs")
    facts = http.services.catalog.get(body.model, http.call.caller).card.vectors
    if body.normalize is False and facts.normalised:
        raise Unsupported(
            f"normalize is false, and vectors of model {body.model} always have length 1",
            field="normalize",
        )
    normalised = body.normalize is not False and not facts.normalised
    async with http.services.embedding.embedded(
        request, dimensions=body.dimensions, prompt_name=body.prompt_name
    ) as embedded:
        vectors = map(unit, embedded.vectors) if normalised else embedded.vectors
        await http.reply.send_list(b"[", map(vector_json, vectors), b"]")


@endpoint(RerankTextsBody, errors=TEI_ERRORS, tasks=RELEVANCE, fits=_is_rerank_of_texts)
async def rerank(http: HttpCall, body: RerankTextsBody) -> None:
    query = Query(_request(body, http, texts(body.texts, "texts"), "texts"), body.query)
    async with http.services.embedding.ranked(query) as ranked:
        ranks = [
            {"index": index}
            | ({"text": body.texts[index]} if body.return_text else {})
            | {"score": relevance}
            for index, relevance in ranked.rankings
        ]
        await http.reply.send_json(ranks)


def _request(body: TeiBody, http: HttpCall, inputs: Sequence[AnyInput], name: str) -> VectorRequest:
    request = vector_request(body, http.call, inputs, name=name)
    return dataclasses.replace(
        request,
        truncate_tokens=WHOLE_CONTEXT if body.truncate else body.truncate_prompt_tokens,
        names={**request.names, "truncate_tokens": "truncate"},
    )
