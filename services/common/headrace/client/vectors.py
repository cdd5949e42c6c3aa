"""Embeddings and rankings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from headrace.client.answers import Usage
from headrace.client.messages import listed, priority_of
from headrace.errors import InvalidRequest
from headrace.v1.embeddings_pb2 import (
    EmbedInput,
    EmbedRequest,
    EmbedResponse,
    RerankRequest,
    RerankResponse,
)


class VectorOptions(TypedDict, total=False):
    """Of both calls; absent: as the mesh has them."""

    truncate_tokens: int | None
    """Cut each input to so many tokens."""
    priority: str | None
    """"interactive", "standard" or "bulk"."""
    timeout_s: float | None
    patience_s: float | None
    """Longest wait for a worker."""


class EmbedOptions(VectorOptions, total=False):
    dimensions: int | None
    """Keep only so many, for models that were trained so."""
    prompt_name: str | None
    """Name of the model's prompt that is put before each text; empty: none."""


class RerankOptions(VectorOptions, total=False):
    top_n: int | None
    """Return only so many of the best."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each input, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    usage: Usage
    request_id: str


@dataclass(frozen=True, slots=True)
class RankedDocument:
    index: int
    """In the documents that were sent."""
    relevance: float
    document: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents, best first."""

    documents: tuple[RankedDocument, ...]
    model: str
    usage: Usage
    request_id: str


def embed_request(
    inputs: str | Sequence[str | Sequence[int]], model: str, options: EmbedOptions
) -> EmbedRequest:
    """Return the message for texts, or lists of token ids.

    Raises:
        InvalidRequest: an input or option cannot be read; the same of `rerank_request`.
    """
    request = EmbedRequest(model=model)
    try:
        for each in [inputs] if isinstance(inputs, str) else inputs:
            one = EmbedInput(text=each) if isinstance(each, str) else EmbedInput(token_ids=each)
            request.inputs.append(one)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"inputs are texts or lists of token ids: {error}", field="inputs"
        ) from error
    _set_options(request, dict(options))
    return request


def rerank_request(
    query: str, documents: Sequence[str], model: str, options: RerankOptions
) -> RerankRequest:
    try:
        texts = listed(documents, "documents")
        request = RerankRequest(model=model, query=query, documents=texts)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"query and documents are texts: {error}") from error
    _set_options(request, dict(options))
    return request


def _set_options(request: EmbedRequest | RerankRequest, options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is None:
            continue
        field = name.removesuffix("_s")
        if field not in request.DESCRIPTOR.fields_by_name:
            raise InvalidRequest(f"{name} is no option of this call", field=name)
        try:
            if isinstance(value, int | float) and field != name:
                getattr(request, field).FromMilliseconds(round(value * 1000))
            elif name == "priority":
                request.priority = priority_of(value)
            else:
                setattr(request, field, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{name}: {error}", field=name) from error


def embeddings(response: EmbedResponse) -> Embeddings:
    vectors = tuple(tuple(vector.values) for vector in response.vectors)
    return Embeddings(vectors, response.model, Usage.of(response.usage), response.request_id)


def ranking(response: RerankResponse, documents: Sequence[str]) -> Ranking:
    ranked = tuple(
        RankedDocument(each.index, each.relevance, documents[each.index])
        for each in response.rankings
    )
    return Ranking(ranked, response.model, Usage.of(response.usage), response.request_id)
