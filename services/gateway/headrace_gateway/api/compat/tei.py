"""/embed, /similarity, /predict, /rerank with `texts`, as text-embeddings-inference has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from headrace.errors import Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.strict_body import ENTRIES, Count, OptionalModel, StrictBody
from headrace_gateway.api.bodies.unsupported_fields import TEI_EMBED, TEI_RERANK
from headrace_gateway.api.bodies.vectors import (
    VectorBody,
    inputs_of,
    lengthens,
    text_inputs,
    texts,
    vector_json,
    vector_request,
)
from headrace_gateway.api.compat.pooling import label_scores
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint, has_member
from headrace_gateway.api.http.errors import TEI_ERRORS
from headrace_gateway.base.cooperative import cooperatively
from headrace_gateway.checks.inputs import check_top_n
from headrace_gateway.request.generation_request import (
    WHOLE_CONTEXT,
    AnyInput,
    Text,
    TextPair,
    VectorRequest,
)
from headrace_gateway.request.vectors import cosine, unit, values_of
from headrace_gateway.submit.embedding import Query

_CLASSIFIES = (ModelTask.MODEL_TASK_CLASSIFY,)
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
    top_n: Count | None = None
    """llama.cpp's; unset: all."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Texts and pairs of texts."""

    entries: list[list[str]]
    are_listed: bool
    """There may be several; else the answer is that of the only one."""


def _sequences(value: object) -> Sequences:
    are_listed = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    entries: Any = value if are_listed else [value]
    found = [_sequence(entry) for entry in entries]
    return Sequences(found, are_listed)


def _sequence(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    if isinstance(entry, list) and len(entry) in (1, 2) and set(map(type, entry)) == {str}:
        return entry
    raise PydanticCustomError(
        "inputs", "should be a text, a pair of texts, or a list of lists of one or two texts"
    )


class PredictBody(TeiBody):
    UNSUPPORTED_FIELDS = TEI_EMBED

    inputs: Annotated[Sequences, PlainValidator(_sequences)]
    raw_scores: bool | None = None
    """Logits in place of probabilities."""


class SimilarityInputs(StrictBody):
    PATH = "inputs."

    source_sentence: str
    sentences: Annotated[list[str], ENTRIES]


class SimilarityParameters(StrictBody):
    UNSUPPORTED_FIELDS = TEI_EMBED
    PATH = "parameters."

    truncate: bool | None = None
    prompt_name: str | None = None


class SimilarityBody(TeiBody):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


def _is_rerank_of_texts(data: bytes) -> bool:
    """Return whether a body of /rerank has `texts`, which are `documents` in the other API."""
    return _HAS_TEXTS(data) and not _HAS_DOCUMENTS(data)


@endpoint(EmbedBody, errors=TEI_ERRORS, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def embed(http: HttpCall, body: EmbedBody) -> None:
    request = _request(body, http, text_inputs(body.inputs, "inputs"), "inputs")
    card = http.services.catalog.get(body.model, http.call.caller).card
    is_unit = lengthens(card, body.normalize is not False)
    async with http.services.embedding.embedded(
        request, dimensions=body.dimensions, prompt_name=body.prompt_name
    ) as embedded:
        vectors = map(unit, embedded.vectors) if is_unit else embedded.vectors
        await http.reply.send_list(b"[", map(vector_json, vectors), b"]")


@endpoint(RerankTextsBody, errors=TEI_ERRORS, tasks=RELEVANCE, fits=_is_rerank_of_texts)
async def rerank(http: HttpCall, body: RerankTextsBody) -> None:
    check_top_n(body.top_n)
    query = Query(_request(body, http, texts(body.texts, "texts"), "texts"), body.query)
    async with http.services.embedding.ranked(query) as ranked:
        ranks = [
            {"index": index}
            | ({"text": body.texts[index]} if body.return_text else {})
            | {"score": relevance}
            for index, relevance in ranked.rankings[: body.top_n]
        ]
        await http.reply.send_json(ranks)


@endpoint(PredictBody, errors=TEI_ERRORS, tasks=_CLASSIFIES)
async def predict(http: HttpCall, body: PredictBody) -> None:
    inputs = [_pair_or_text(each, f"inputs[{i}]") for i, each in enumerate(body.inputs.entries)]
    request = _request(body, http, inputs, "inputs")
    async with http.services.embedding.pooled(request, *_CLASSIFIES) as made:
        found = [_labelled(made.card, logits, raw=bool(body.raw_scores)) for logits in made.vectors]
        await http.reply.send_json(found if body.inputs.are_listed else found[0])


@endpoint(SimilarityBody, errors=TEI_ERRORS, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def similarity(http: HttpCall, body: SimilarityBody) -> None:
    given, parameters = body.inputs, body.parameters or SimilarityParameters()
    source = Text(given.source_sentence, "inputs.source_sentence")
    inputs = [source, *texts(given.sentences, "inputs.sentences")]
    request = _request(body, http, inputs, "inputs.sentences")
    if parameters.truncate:
        request = dataclasses.replace(request, truncate_tokens=WHOLE_CONTEXT)
    async with http.services.embedding.embedded(
        request, dimensions=None, prompt_name=parameters.prompt_name
    ) as embedded:
        first, *others = map(values_of, embedded.vectors)
        pairs = cooperatively((first, other) for other in others)
        await http.reply.send_json([cosine(*pair) async for pair in pairs])


@endpoint(EmbedBody, errors=TEI_ERRORS, tasks=(ModelTask.MODEL_TASK_EMBED,))
async def embed_all(http: HttpCall, body: EmbedBody) -> None:
    raise Unsupported(
        "/embed_all and /embed_sparse are not served: models make one dense vector of an input; use"
        " /embed"
    )


def _pair_or_text(entry: list[str], field: str) -> AnyInput:
    return Text(entry[0], field) if len(entry) == 1 else TextPair(entry[0], entry[1], field)


def _labelled(card: ModelCard, logits: bytes, *, raw: bool) -> list[dict[str, object]]:
    """Return the labels of a text with their scores, the highest first."""
    scores = label_scores(card, logits, activates=not raw)
    by_label = zip(card.vectors.labels, scores, strict=True)
    ordered = sorted(by_label, key=lambda each: -each[1])
    return [{"score": score, "label": label} for label, score in ordered]


def _request(body: TeiBody, http: HttpCall, inputs: Sequence[AnyInput], name: str) -> VectorRequest:
    request = vector_request(body, http.call, inputs, name=name)
    return dataclasses.replace(
        request,
        truncate_tokens=WHOLE_CONTEXT if body.truncate else body.truncate_prompt_tokens,
        names={**request.names, "truncate_tokens": "truncate"},
    )
