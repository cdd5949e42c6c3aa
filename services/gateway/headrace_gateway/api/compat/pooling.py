"""/classify and /pooling, as vLLM has them."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import PlainValidator

from headrace.errors import Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.strict_body import Count, OptionalModel
from headrace_gateway.api.bodies.unsupported_fields import CLASSIFY, POOLING
from headrace_gateway.api.bodies.vectors import (
    VectorBody,
    inputs_of,
    text_inputs,
    vector_json,
    vector_request,
)
from headrace_gateway.api.http.endpoint import HttpCall, endpoint
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.tasks import task_of
from headrace_gateway.request.vectors import bytes_of, probabilities, values_of
from headrace_gateway.submit.embedding import Embedded

_CLASSIFIES = (ModelTask.MODEL_TASK_CLASSIFY,)
_POOLS = (
    ModelTask.MODEL_TASK_EMBED,
    ModelTask.MODEL_TASK_CLASSIFY,
    ModelTask.MODEL_TASK_SCORE,
)
_TASKS = {
    "embed": ModelTask.MODEL_TASK_EMBED,
    "classify": ModelTask.MODEL_TASK_CLASSIFY,
    "score": ModelTask.MODEL_TASK_SCORE,
}
"""By vLLM's names."""
Inputs = Annotated[list[str] | list[list[int]], PlainValidator(inputs_of)]


class _LabelsBody(VectorBody):
    model: OptionalModel = ""
    input: Inputs
    activation: bool | None = None
    """An older name of the next, as softmax."""
    softmax: bool | None = None
    use_activation: bool | None = None
    """False: logits in place of probabilities."""

    @property
    def makes_probabilities(self) -> bool:
        return False not in (self.use_activation, self.activation, self.softmax)


class ClassifyBody(_LabelsBody):
    UNSUPPORTED_FIELDS = CLASSIFY


class PoolingBody(_LabelsBody):
    UNSUPPORTED_FIELDS = POOLING

    task: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None


@endpoint(ClassifyBody, tasks=_CLASSIFIES)
async def classify(http: HttpCall, body: ClassifyBody) -> None:
    request = vector_request(body, http.call, text_inputs(body.input, "input"), name="input")
    async with http.services.embedding.pooled(request, *_CLASSIFIES) as made:
        labels = made.card.vectors.labels
        data = []
        for index, logits in enumerate(made.vectors):
            scores = label_scores(made.card, logits, activates=body.makes_probabilities)
            best = max(range(len(scores)), key=scores.__getitem__)
            data.append(
                {
                    "index": index,
                    "label": labels[best],
                    "probs": scores,
                    "num_classes": len(scores),
                }
            )
        head = _head(made, f"classify-{http.call.request_id}")
        await http.reply.send_json(head | {"data": data, "usage": _usage(made)})


@endpoint(PoolingBody, tasks=_POOLS)
async def pooling(http: HttpCall, body: PoolingBody) -> None:
    card = http.services.catalog.get(body.model, http.call.caller).card
    _check_task(body, card)
    request = vector_request(body, http.call, text_inputs(body.input, "input"), name="input")
    if task_of(card) == ModelTask.MODEL_TASK_EMBED:
        computed = http.services.embedding.embedded(
            request, dimensions=body.dimensions, prompt_name=None
        )
    else:
        computed = http.services.embedding.pooled(request, *_POOLS)
    async with computed as made:
        write = _writer(body, made.card)
        entries = (
            b'{"index":%d,"object":"pooling","data":%s}' % (index, write(vector))
            for index, vector in enumerate(made.vectors)
        )
        head = json.dumps(_head(made, f"pool-{http.call.request_id}"))[:-1]
        end = b'],"usage":%s}' % json.dumps(_usage(made)).encode()
        await http.reply.send_list(head.encode() + b',"data":[', entries, end)


def label_scores(card: ModelCard, logits: bytes, *, activates: bool = True) -> list[float]:
    """Return a number for each label of a model that classifies: its probability, or its logit."""
    if not activates:
        return list(values_of(logits))
    return probabilities(logits, multi_label=card.vectors.multi_label)


def _check_task(body: PoolingBody, card: ModelCard) -> None:
    """
    Raises:
        Unsupported: the model does not do what is requested.
    """
    task = task_of(card)
    if body.task is not None and _TASKS.get(body.task) != task:
        made = next((name for name, each in _TASKS.items() if each == task), "none")
        raise Unsupported(
            f"task is {quoted(body.task)}; of model {card.model} it may be {made}", field="task"
        )
    if not body.makes_probabilities and task != ModelTask.MODEL_TASK_CLASSIFY:
        raise Unsupported(
            f"use_activation is false, and model {card.model} has one form of result alone",
            field="use_activation",
        )
    if body.dimensions is not None and task != ModelTask.MODEL_TASK_EMBED:
        raise Unsupported(
            f"dimensions is set, and model {card.model} makes no vectors", field="dimensions"
        )


def _writer(body: PoolingBody, card: ModelCard) -> Callable[[bytes], bytes]:
    classifies = task_of(card) == ModelTask.MODEL_TASK_CLASSIFY

    def write(vector: bytes) -> bytes:
        if classifies and body.makes_probabilities:
            vector = bytes_of(array("f", label_scores(card, vector)))
        if body.encoding_format == "base64":
            return b'"%s"' % base64.b64encode(vector)
        return vector_json(vector)

    return write


def _head(made: Embedded, response_id: str) -> dict[str, object]:
    return {
        "id": response_id,
        "object": "list",
        "created": int(made.arrival_s),
        "model": made.card.model,
    }


def _usage(made: Embedded) -> dict[str, int]:
    tokens = made.prompt_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
