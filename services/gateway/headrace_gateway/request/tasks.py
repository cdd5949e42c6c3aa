"""Pure: the task of a model, and the error for a request of another task."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import ModelTask

_MAKES = {
    ModelTask.MODEL_TASK_GENERATE: "makes text; use POST /v1/chat/completions or"
    " /v1/completions, or by GenerationService",
    ModelTask.MODEL_TASK_EMBED: "makes vectors of texts; use POST /v1/embeddings or"
    " /v1/rerank or /v1/score, or by EmbeddingService",
    ModelTask.MODEL_TASK_SCORE: "scores documents for a query; use POST /v1/rerank or"
    " /v1/score, or by EmbeddingService.Rerank",
    ModelTask.MODEL_TASK_CLASSIFY: "sorts texts into classes; use POST /v1/classify or"
    " /v1/moderations",
}


def task_of(card: ModelCard) -> ModelTask.ValueType:
    if card.HasField("vectors"):
        return card.vectors.task
    return ModelTask.MODEL_TASK_GENERATE


def fitting(cards: Iterable[ModelCard], *tasks: ModelTask.ValueType) -> list[str]:
    """Return the models for such a task, sorted; of any task where none is given.

    Of several tasks the earlier goes first: a later one counts where no model has the earlier.
    """
    there = sorted((task_of(card), card.model) for card in cards)
    by_task = [[name for task, name in there if task == requested] for requested in tasks]
    return next(filter(None, by_task), []) if tasks else sorted(name for _, name in there)


def only_model(names: list[str]) -> str:
    """Return the model of a call that names none: the only one that fits.

    Raises:
        InvalidRequest: there are several, or none.
    """
    if len(names) == 1:
        return names[0]
    fact = f"there are {len(names)} models for this: {', '.join(names)}; name one"
    if not names:
        fact = "there is no model for this"
    raise InvalidRequest(f"model: is missing; {fact}", field="model")


def require_task(card: ModelCard, *tasks: ModelTask.ValueType) -> None:
    """
    Raises:
        Unsupported: the model is for something else.
    """
    if (task := task_of(card)) not in tasks:
        raise Unsupported(f"model {card.model} {_MAKES[task]}", field="model")
