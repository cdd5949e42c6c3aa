"""/v2/rerank, as Cohere has it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated

from pydantic import Field, PlainValidator

from headrace_gateway.api.bodies.entries import documents_of
from headrace_gateway.api.bodies.strict_body import WholeNumber
from headrace_gateway.api.bodies.unsupported_fields import RERANK_V2
from headrace_gateway.api.bodies.vectors import Count, VectorBody, vector_request
from headrace_gateway.api.compat.endpoint import RELEVANCE, ApiServices, OptionalModel
from headrace_gateway.api.compat.errors import COHERE_ERRORS
from headrace_gateway.base.calls import Context
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.generation_request import WHOLE_CONTEXT, AnyInput, Text
from headrace_gateway.submit.embedding import Query, Ranked

_DOCUMENT_TOKENS = 4096
"""Cohere's default of `max_tokens_per_doc`."""
_SEARCH_UNIT_DOCUMENTS = 100
"""What Cohere bills as one."""


class RerankV2Body(VectorBody):
    UNSUPPORTED_FIELDS = RERANK_V2

    model: OptionalModel = ""
    query: str
    documents: Annotated[list[str], PlainValidator(documents_of)]
    top_n: Count | None = None
    max_tokens_per_doc: Annotated[WholeNumber, Field(ge=1, lt=2**32)] | None = None
    return_documents: bool | None = None
    """Unset: they are not returned."""


async def rerank(serving: ApiServices, data: bytes, context: Context) -> None:
    async with serving.call(context, COHERE_ERRORS) as http:
        body = serving.read(RerankV2Body, data, http)
        model = serving.model(body.model, http, *RELEVANCE)
        check_top_n(body.top_n)
        most = body.max_tokens_per_doc or _DOCUMENT_TOKENS
        texts = await serving.beginnings(model, body.documents, most)
        documents = [Text(text, f"documents[{i}]") for i, text in enumerate(texts)]
        wanted = vector_request(body, http.call, list[AnyInput](documents), name="documents")
        wanted = dataclasses.replace(
            wanted, model=model, truncate_tokens=body.truncate_prompt_tokens or WHOLE_CONTEXT
        )
        async with serving.embedding.ranked(Query(wanted, body.query)) as ranked:
            answer = _answer(body, ranked, http.call.request_id)
            await http.reply.send(json.dumps(answer).encode())


def _answer(body: RerankV2Body, ranked: Ranked, request_id: str) -> dict[str, object]:
    results: list[dict[str, object]] = []
    for index, relevance in ranked.rankings[: body.top_n]:
        result: dict[str, object] = {"index": index, "relevance_score": relevance}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    units = math.ceil(len(body.documents) / _SEARCH_UNIT_DOCUMENTS)
    return {
        "id": request_id,
        "results": results,
        "meta": {
            "api_version": {"version": "2", "is_experimental": False},
            "billed_units": {"search_units": units},
            "tokens": {"input_tokens": ranked.prompt_tokens},
        },
    }
