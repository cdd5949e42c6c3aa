"""The JSON bodies of /v1/embeddings (OpenAI's) and /v1/rerank (Cohere's, Jina's, vLLM's)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError, to_json

from headrace.errors import Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import Priority
from headrace_gateway.api.bodies.entries import documents_of
from headrace_gateway.api.bodies.json_objects import are_token_ids, texts_or_token_ids
from headrace_gateway.api.bodies.strict_body import Count, OptionalModel, PrioritizedBody
from headrace_gateway.api.bodies.unsupported_fields import EMBEDDINGS, RERANK, VECTOR_NO_EFFECT
from headrace_gateway.base.calls import Call, wants_cache
from headrace_gateway.request.generation_request import AnyInput, Text, TokenIds, VectorRequest
from headrace_gateway.request.vectors import values_of


def inputs_of(value: object) -> Sequence[str | list[int]]:
    """Return a text, token ids, or a list of both, as a list."""
    if (inputs := texts_or_token_ids(value)) is not None:
        return inputs
    if isinstance(value, list) and all(
        isinstance(each, str) or (isinstance(each, list) and are_token_ids(each)) for each in value
    ):
        return value
    raise PydanticCustomError(
        "inputs", "should be a text, a list of texts, a list of token ids or a list of such lists"
    )


class VectorBody(PrioritizedBody):
    """What both endpoints take."""

    IGNORED_FIELDS = VECTOR_NO_EFFECT

    model: OptionalModel = ""

    truncate_prompt_tokens: Count | None = None
    """vLLM's; -1 is as many as the model takes."""


class EmbeddingsBody(VectorBody):
    UNSUPPORTED_FIELDS = EMBEDDINGS

    input: Annotated[list[str] | list[list[int]], PlainValidator(inputs_of)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    normalize: bool | None = None
    """Unset: as the model has it."""
    prompt_name: str | None = None
    """Of the model's own prompts; unset: its default, empty: none."""


class RerankBody(VectorBody):
    UNSUPPORTED_FIELDS = RERANK

    query: str
    documents: Annotated[list[str], PlainValidator(documents_of)]
    top_n: Count | None = None
    return_documents: bool | None = None
    """Unset: /v1/rerank returns them, as Jina and vLLM do, and /v2/rerank does not, as Cohere."""


def text_inputs(values: Sequence[str | list[int]], field: str) -> list[AnyInput]:
    """Return texts or token ids as inputs, each by its place in the field if there are several."""
    return [
        Text(value, name) if isinstance(value, str) else TokenIds(value, name)
        for i, value in enumerate(values)
        for name in (field if len(values) == 1 else f"{field}[{i}]",)
    ]


def lengthens(card: ModelCard, normalize: bool | None) -> bool:
    """Return whether vectors of a model are to be given length 1; unset: they stay as they are.

    Raises:
        Unsupported: they have length 1, and that is not to be.
    """
    normalised = card.vectors.normalised
    if normalize is False and normalised:
        raise Unsupported(
            f"normalize is false, and vectors of model {card.model} always have length 1",
            field="normalize",
        )
    return bool(normalize) and not normalised


def vector_json(vector: bytes) -> bytes:
    """Return the numbers of a vector as a JSON list."""
    return to_json(values_of(vector).tolist())


def texts(values: Sequence[str], field: str) -> list[Text]:
    """Return the entries of a list, each by its place in the field."""
    return [Text(value, f"{field}[{i}]") for i, value in enumerate(values)]


def vector_request(
    body: VectorBody, call: Call, inputs: Sequence[AnyInput], *, name: str
) -> VectorRequest:
    row = call.row
    return VectorRequest(
        request_id=call.request_id if row is None else row.name,
        model=body.model,
        inputs=inputs,
        priority=body.lane_priority if row is None else Priority.PRIORITY_BULK,
        row=row,
        cached=wants_cache(call),
        truncate_tokens=body.truncate_prompt_tokens,
        time_remaining_s=call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        names={
            "inputs": name,
            "priority": body.priority_field,
            "truncate_tokens": "truncate_prompt_tokens",
        },
    )
