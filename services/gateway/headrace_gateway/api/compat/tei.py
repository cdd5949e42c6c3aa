"""/embed, and /rerank with `texts`, as text-embeddings-inference has them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field, PlainValidator
from pydantic_core import to_json

from headrace.errors import Unsupported
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES
from headrace_gateway.api.bodies.strict_body import OptionalModel
from headrace_gateway.api.bodies.unsupported_fields import TEI_EMBED, TEI_RERANK
from headrace_gateway.api.bodies.vectors import (
    Count,
    VectorBody,
    inputs_of,
    text_inputs,
    vector_request,
)
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint, has_member
from headrace_gateway.api.http.errors import TEI_ERRORS
from headrace_gateway.base.cooperative import cooperatively, joined_chunks
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    Text,
    VectorRequest,
)
from headrace_gateway.request.vectors import unit, values_of
from headrace_gateway.submit.embedding import Embedded, Query

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
    texts: Annotated[list[str], Field(fail_fast=True, max_length=MAX_ENTRIES)]
    return_text: bool | None = None


def _is_rerank_of_texts(data: bytes) -> bool:
    """Return whether a body of /rerank has `texts`, which are `documents` in the other API."""
    return _HAS_TEXTS(data) and not _HAS_DOCUMENTS(data)


@endpoint(EmbedBody, errors=TEI_ERRORS, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def embed(http: HttpCall, body: EmbedBody) -> None:
    request = _request(body, http, text_inputs(body.inputs, "inputs"), "inputs")
    facts = http.services.catalog.get(body.model).card.vectors
    if body.normalize is False and facts.normalised:
        raise Unsupported(
            f"normalize is false, and vectors of model {body.model} always have length 1",
            field="normalize",
        )
    normalised = body.normalize is not False and not facts.normalised
    async with http.services.embedding.embedded(
        request, dimensions=body.dimensions, prompt_name=body.prompt_name
    ) as embedded:
        await http.reply.send_pieces(joined_chunks(_vectors(embedded, normalised=normalised)))


@endpoint(RerankTextsBody, errors=TEI_ERRORS, tasks=RELEVANCE, fits=_is_rerank_of_texts)
async def rerank(http: HttpCall, body: RerankTextsBody) -> None:
    texts: list[AnyInput] = [Text(text, f"texts[{i}]") for i, text in enumerate(body.texts)]
    query = Query(_request(body, http, texts, "texts"), body.query)
    async with http.services.embedding.ranked(query) as ranked:
        ranks = [
            {"index": index}
            | ({"text": body.texts[index]} if body.return_text else {})
            | {"score": relevance}
            for index, relevance in ranked.rankings
        ]
        await http.reply.send_json(ranks)


def _request(body: TeiBody, http: HttpCall, inputs: list[AnyInput], name: str) -> VectorRequest:
    request = vector_request(body, http.call, inputs, name=name)
    return dataclasses.replace(
        request,
        truncate_tokens=WHOLE_CONTEXT if body.truncate else body.truncate_prompt_tokens,
        names={**request.names, "truncate_tokens": "truncate"},
    )


async def _vectors(embedded: Embedded, *, normalised: bool) -> AsyncIterator[bytes]:
    yield b"["
    async for index, vector in cooperatively(enumerate(embedded.vectors)):
        printed = to_json(values_of(unit(vector) if normalised else vector).tolist())
        yield (b"," if index else b"") + printed
    yield b"]"
