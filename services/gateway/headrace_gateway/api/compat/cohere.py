"""/v2/rerank, as Cohere has it."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from pydantic import Field

from headrace_gateway.api.bodies.strict_body import OptionalModel, WholeNumber
from headrace_gateway.api.bodies.unsupported_fields import RERANK_V2
from headrace_gateway.api.bodies.vectors import RerankBody, texts, vector_request
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint
from headrace_gateway.api.http.errors import COHERE_ERRORS
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.generation_request import WHOLE_CONTEXT
from headrace_gateway.submit.embedding import Query, Ranked

_DOCUMENT_TOKENS = 4096
"""Cohere's default of `max_tokens_per_doc`."""
_SEARCH_UNIT_DOCUMENTS = 100
"""Documents that Cohere bills as one search unit."""


class RerankV2Body(RerankBody):
    UNSUPPORTED_FIELDS = RERANK_V2

    model: OptionalModel = ""
    max_tokens_per_doc: Annotated[WholeNumber, Field(ge=1, lt=2**32)] | None = None


@endpoint(RerankV2Body, errors=COHERE_ERRORS, tasks=RELEVANCE)
async def rerank(http: HttpCall, body: RerankV2Body) -> None:
    check_top_n(body.top_n)
    most = body.max_tokens_per_doc or _DOCUMENT_TOKENS
    cut = await _truncate(http, body.model, body.documents, most)
    request = vector_request(body, http.call, texts(cut, "documents"), name="documents")
    truncate_tokens = body.truncate_prompt_tokens or WHOLE_CONTEXT
    request = dataclasses.replace(request, truncate_tokens=truncate_tokens)
    async with http.services.embedding.ranked(Query(request, body.query)) as ranked:
        await http.reply.send_json(_response(body, ranked, http.call.request_id))


async def _truncate(http: HttpCall, model: str, texts: list[str], max_tokens: int) -> list[str]:
    """Return the texts, each cut to so many of the model's tokens, or to its context.

    Raises:
        ModelNotFound: there is no such model.
    """
    served = http.services.catalog.get(model, http.call.caller)
    max_tokens = min(max_tokens, served.card.context_tokens)
    # Why before: text that is too long for any tokenizer is not tokenized.
    characters = max_tokens * http.services.settings.max_prompt_characters_per_token
    return await served.tokenizer.beginnings([text[:characters] for text in texts], max_tokens)


def _response(body: RerankV2Body, ranked: Ranked, request_id: str) -> dict[str, object]:
    documents = body.documents if body.return_documents else None
    units = math.ceil(len(body.documents) / _SEARCH_UNIT_DOCUMENTS)
    return {
        "id": request_id,
        "results": ranked_documents(ranked, body.top_n, documents),
        "meta": {
            "api_version": {"version": "2", "is_experimental": False},
            "billed_units": {"search_units": units},
            "tokens": {"input_tokens": ranked.prompt_tokens},
        },
    }


def ranked_documents(
    ranked: Ranked, top_n: int | None, documents: list[str] | None
) -> list[dict[str, object]]:
    """Return Cohere's and Jina's `results`, best first; with the documents where they are given."""
    return [
        {"index": index, "relevance_score": relevance}
        | ({"document": {"text": documents[index]}} if documents is not None else {})
        for index, relevance in ranked.rankings[:top_n]
    ]
