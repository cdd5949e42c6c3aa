"""/v1/moderations, by a model that classifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, PlainValidator
from pydantic_core import PydanticCustomError

from headrace.errors import FailedPrecondition, ModelNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.strict_body import UNSUPPORTED
from headrace_gateway.api.bodies.vectors import VectorBody, text_inputs, vector_request
from headrace_gateway.api.compat.pooling import label_scores
from headrace_gateway.api.http.endpoint import HttpCall, endpoint, with_model
from headrace_gateway.base.moderation import CATEGORIES, HARMLESS, category_of, read_labels
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings

_CLASSIFIES = (ModelTask.MODEL_TASK_CLASSIFY,)
_OPENAIS = ("omni-moderation-", "text-moderation-")
"""How names of OpenAI's own models begin, which its clients send."""
_DEFAULT = "omni-moderation-latest"
"""OpenAI's, where a call names none."""


def _texts(value: object) -> list[str]:
    """Return a text, a list of texts, or of parts of type text as its texts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("input", "should be a text, a list of texts or of parts")
    return [_text(each, i) for i, each in enumerate(value)]


def _text(value: object, i: int) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind != "text":
        raise PydanticCustomError(
            UNSUPPORTED,
            "part {i} is of type {type}; only text is read",
            {"i": i, "type": quoted(kind)},
        )
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise PydanticCustomError("input", "part {i} is neither a text nor has one", {"i": i})
    return text


class ModerationBody(VectorBody):
    model: Annotated[str, BeforeValidator(lambda name: name or _DEFAULT)] = _DEFAULT
    input: Annotated[list[str], PlainValidator(_texts)]


@endpoint(ModerationBody)
async def create(http: HttpCall, body: ModerationBody) -> None:
    body = _with_moderator(http, body)
    request = vector_request(body, http.call, text_inputs(body.input, "input"), name="input")
    settings = http.services.settings
    served = http.services.catalog.get(request.model, request.caller)
    # Why first: what is refused costs its caller nothing.
    categories = _categories(served.card, settings)
    async with http.services.embedding.pooled(request, *_CLASSIFIES) as made:
        card = made.card
        results = [
            moderation(label_scores(card, logits), categories, settings.moderation_threshold)
            for logits in made.vectors
        ]
        answer = {"id": f"modr-{http.call.request_id}", "model": card.model, "results": results}
        await http.reply.send_json(answer)


def _with_moderator(http: HttpCall, body: ModerationBody) -> ModerationBody:
    """Return the body with the model that moderates where it names none, or one of OpenAI's.

    Raises:
        InvalidRequest: none is set, and there is not exactly one that classifies.
    """
    name, catalog = body.model, http.services.catalog
    if name.startswith(_OPENAIS):
        try:
            catalog.get(name, http.call.caller)
        except ModelNotFound:
            name = ""
    name = name or http.services.settings.moderation_model
    return with_model(http, body.model_copy(update={"model": name}), _CLASSIFIES)


def _categories(card: ModelCard, settings: GatewaySettings) -> list[str]:
    """
    Raises:
        FailedPrecondition: a label of the model has no category.
    """
    configured = read_labels(settings.moderation_labels)
    try:
        return [category_of(label, configured) for label in card.vectors.labels]
    except KeyError as missing:
        raise FailedPrecondition(
            f"model {card.model} has the label {quoted(missing.args[0])}, for which no category is"
            " set; the gateway's moderation_labels sets it",
            field="model",
        ) from missing


def moderation(
    scores: Sequence[float], categories: Sequence[str], threshold: float
) -> dict[str, object]:
    """Return the result of one text: of several labels of a category the highest score counts.

    Args:
        scores: of each label, as the next.
    """
    highest = dict.fromkeys(CATEGORIES, 0.0)
    for score, category in zip(scores, categories, strict=True):
        if category != HARMLESS:
            highest[category] = max(highest[category], score)
    flags = {category: score >= threshold for category, score in highest.items()}
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": highest,
        "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
    }
