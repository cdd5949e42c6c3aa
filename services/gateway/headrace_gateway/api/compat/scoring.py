"""/v1/score and /score, as vLLM has them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from headrace.errors import InvalidRequest
from headrace_gateway.api.bodies.strict_body import OptionalModel
from headrace_gateway.api.bodies.unsupported_fields import SCORE
from headrace_gateway.api.bodies.vectors import VectorBody, vector_request
from headrace_gateway.api.http.endpoint import RELEVANCE, HttpCall, endpoint
from headrace_gateway.checks.inputs import check_input_count
from headrace_gateway.request.generation_request import Text
from headrace_gateway.submit.embedding import Scored

_SIDES = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)
"""The names that versions of vLLM have for the two sides."""


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and set(map(type, value)) <= {str}:
        return value
    raise PydanticCustomError("texts", "should be a text or a list of texts")


Texts = Annotated[list[str], PlainValidator(_texts)]


class ScoreBody(VectorBody):
    UNSUPPORTED_FIELDS = SCORE

    model: OptionalModel = ""
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None

    @property
    def sides(self) -> tuple[str, str]:
        """Return the names of its two sides."""
        return next(
            pair for pair in _SIDES if all(getattr(self, name) is not None for name in pair)
        )

    @model_validator(mode="after")
    def _has_two_sides(self) -> Self:
        given = {name for pair in _SIDES for name in pair if getattr(self, name) is not None}
        if given not in map(set, _SIDES):
            known = ", ".join(" and ".join(pair) for pair in _SIDES)
            there = " and ".join(sorted(given)) or "none of them"
            raise PydanticCustomError(
                "sides",
                "there should be two sides, by one of these pairs of names: {known}; there is"
                " {there}",
                {"known": known, "there": there, "field": "text_1"},
            )
        return self


@endpoint(ScoreBody, tasks=RELEVANCE)
async def score(http: HttpCall, body: ScoreBody) -> None:
    first, second = body.sides
    queries, documents = _named(body, first), _named(body, second)
    _check_counts(first, len(queries), second, len(documents))
    request = vector_request(body, http.call, documents, name=second)
    async with http.services.embedding.scored(request, queries) as scored:
        await http.reply.send_json(_response(scored, http.call.request_id))


def _named(body: ScoreBody, name: str) -> list[Text]:
    texts: list[str] = getattr(body, name)
    return [Text(text, f"{name}[{i}]" if len(texts) > 1 else name) for i, text in enumerate(texts)]


def _check_counts(first: str, queries: int, second: str, documents: int) -> None:
    check_input_count(queries, first)
    check_input_count(documents, second)
    if queries not in (1, documents):
        raise InvalidRequest(
            f"{first} has {queries} texts and {second} has {documents}; {first} may have one for"
            " all, or as many",
            field=first,
        )


def _response(scored: Scored, request_id: str) -> dict[str, object]:
    return {
        "id": f"score-{request_id}",
        "object": "list",
        "created": int(scored.arrival_s),
        "model": scored.card.model,
        "data": [
            {"index": index, "object": "score", "score": relevance}
            for index, relevance in enumerate(scored.relevances)
        ],
        "usage": {
            "prompt_tokens": scored.prompt_tokens,
            "total_tokens": scored.prompt_tokens,
            "completion_tokens": 0,
        },
    }
