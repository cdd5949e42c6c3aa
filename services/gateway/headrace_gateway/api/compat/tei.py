"""/embed, and /rerank with `texts`, as text-embeddings-inference has them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field, PlainValidator
from pydantic_core import to_json

from headrace.errors import Unsupported
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES
from headrace_gateway.api.bodies.unsupported_fields import TEI_EMBED, TEI_RERANK
from headrace_gateway.api.bodies.vectors import Count, VectorBody, inputs_of, vector_request
from headrace_gateway.api.compat.endpoint import (
    RELEVANCE,
    ApiServices,
    HttpCall,
    OptionalModel,
    member_pattern,
)
from headrace_gateway.api.compat.errors import TEI_ERRORS
from headrace_gateway.base.calls import Context
from headrace_gateway.base.cooperative import cooperatively, joined_chunks
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    Text,
    TokenIds,
    VectorRequest,
)
from headrace_gateway.request.vectors import unit, values_of
from headrace_gateway.submit.embedding import Embedded, Query

_TEXTS, _DOCUMENTS = member_pattern(b"texts"), member_pattern(b"documents")


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


def is_of_texts(data: bytes) -> bool:
    """Whether the body of a call of /rerank is of this form."""
    return bool(_TEXTS.search(data)) and not _DOCUMENTS.search(data)


async def embed(serving: ApiServices, data: bytes, context: Context) -> None:
    async with serving.call(context, TEI_ERRORS) as http:
        body = serving.read(EmbedBody, data, http)
        inputs = [_input(body, i) for i in range(len(body.inputs))]
        wanted = _wanted(serving, body, http, inputs, "inputs", ModelTask.MODEL_TASK_EMBED)
        facts = serving.catalog.get(wanted.model).card.vectors
        if body.normalize is False and facts.normalised:
            raise Unsupported(
                f"normalize is false, and vectors of model {wanted.model} always have length 1",
                field="normalize",
            )
        normalised = body.normalize is not False and not facts.normalised
        async with serving.embedding.embedded(
            wanted, dimensions=body.dimensions, prompt_name=body.prompt_name
        ) as embedded:
            await http.reply.send_pieces(joined_chunks(_vectors(embedded, normalised=normalised)))


def _input(body: EmbedBody, number: int) -> AnyInput:
    given = body.inputs[number]
    field = f"inputs[{number}]" if len(body.inputs) > 1 else "inputs"
    return Text(given, field) if isinstance(given, str) else TokenIds(given, field)


async def rerank(serving: ApiServices, data: bytes, context: Context) -> None:
    async with serving.call(context, TEI_ERRORS) as http:
        body = serving.read(RerankTextsBody, data, http)
        texts: list[AnyInput] = [Text(text, f"texts[{i}]") for i, text in enumerate(body.texts)]
        wanted = _wanted(serving, body, http, texts, "texts", *RELEVANCE)
        async with serving.embedding.ranked(Query(wanted, body.query)) as ranked:
            ranks = [
                {"index": index}
                | ({"text": body.texts[index]} if body.return_text else {})
                | {"score": relevance}
                for index, relevance in ranked.rankings
            ]
            await http.reply.send(json.dumps(ranks).encode())


def _wanted(
    serving: ApiServices,
    body: TeiBody,
    http: HttpCall,
    inputs: list[AnyInput],
    name: str,
    *tasks: ModelTask.ValueType,
) -> VectorRequest:
    wanted = vector_request(body, http.call, inputs, name=name)
    return dataclasses.replace(
        wanted,
        model=serving.model(body.model, http, *tasks),
        truncate_tokens=WHOLE_CONTEXT if body.truncate else body.truncate_prompt_tokens,
        names={**wanted.names, "truncate_tokens": "truncate"},
    )


async def _vectors(embedded: Embedded, *, normalised: bool) -> AsyncIterator[bytes]:
    yield b"["
    async for index, vector in cooperatively(enumerate(embedded.vectors)):
        printed = to_json(values_of(unit(vector) if normalised else vector).tolist())
        yield (b"," if index else b"") + printed
    yield b"]"
