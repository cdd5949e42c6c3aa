"""The JSON bodies of /v1/embeddings (OpenAI's) and /v1/rerank (Cohere's, Jina's, vLLM's)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from headrace_gateway.api.bodies.convert import priority_of
from headrace_gateway.api.bodies.entries import documents_of
from headrace_gateway.api.bodies.json_objects import texts_or_token_ids
from headrace_gateway.api.bodies.strict_body import (
    RequestBody,
    WholeNumber,
    field_error,
)
from headrace_gateway.api.bodies.unsupported_fields import EMBEDDINGS, RERANK, VECTOR_NO_EFFECT
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import AnyInput, Text, TokenIds, VectorRequest

_UINT32 = 2**32 - 1
Count = Annotated[WholeNumber, Field(ge=-_UINT32, le=_UINT32)]


def inputs_of(value: object) -> list[str] | list[list[int]]:
    """A text, token ids, or a list of either."""
    if (inputs := texts_or_token_ids(value)) is not None:
        return inputs
    raise PydanticCustomError(
        "inputs", "should be a text, a list of texts, a list of token ids or a list of such lists"
    )


class VectorBody(RequestBody):
    """What both endpoints take."""

    IGNORED_FIELDS = VECTOR_NO_EFFECT

    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    truncate_prompt_tokens: Count | None = None
    """vLLM's; -1 is as many as the model takes."""
    priority: Annotated[WholeNumber, Field(ge=-(2**63), lt=2**63)] | None = None
    """vLLM's, beside no service_tier: below 0 is interactive, above it bulk."""
    user: str | None = None

    @model_validator(mode="after")
    def _has_one_priority(self) -> Self:
        if self.priority and self.service_tier not in (None, "auto"):
            raise field_error("priority", "is set beside service_tier; one may be")
        return self


class EmbeddingsBody(VectorBody):
    UNSUPPORTED_FIELDS = EMBEDDINGS

    input: Annotated[list[str] | list[list[int]], PlainValidator(inputs_of)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    prompt_name: str | None = None
    """Of the model's own prompts; unset: its default, empty: none."""


class RerankBody(VectorBody):
    UNSUPPORTED_FIELDS = RERANK

    query: str
    documents: Annotated[list[str], PlainValidator(documents_of)]
    top_n: Count | None = None
    return_documents: bool | None = None
    """Unset: they are returned, as Jina and vLLM do."""


def text_inputs(values: Sequence[str | list[int]], field: str) -> list[AnyInput]:
    """Return texts or token ids as inputs, each by its place in the field if there are several."""
    return [
        Text(value, name) if isinstance(value, str) else TokenIds(value, name)
        for i, value in enumerate(values)
        for name in (field if len(values) == 1 else f"{field}[{i}]",)
    ]


def embeddings_request(body: EmbeddingsBody, call: Call) -> VectorRequest:
    return vector_request(body, call, text_inputs(body.input, "input"), name="input")


def rerank_request(body: RerankBody, call: Call) -> VectorRequest:
    """Its inputs are the documents."""
    documents = [Text(text, f"documents[{i}]") for i, text in enumerate(body.documents)]
    return vector_request(body, call, list[AnyInput](documents), name="documents")


def vector_request(
    body: VectorBody, call: Call, inputs: list[AnyInput], *, name: str
) -> VectorRequest:
    return VectorRequest(
        request_id=call.request_id,
        model=body.model,
        inputs=inputs,
        priority=priority_of(body.priority, body.service_tier),
        truncate_tokens=body.truncate_prompt_tokens,
        time_remaining_s=call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        names={
            "inputs": name,
            "priority": "priority" if body.priority else "service_tier",
            "truncate_tokens": "truncate_prompt_tokens",
        },
    )
