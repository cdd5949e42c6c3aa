"""Models that make vectors, and a stand-in for them whose vectors can be told from the inputs."""

from __future__ import annotations

import random
import struct
from typing import Any

import httpx

from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.request.generation import ChoiceEnded, Input, ValidRequest
from helpers.running_api import CARD
from helpers.scripted_admission import STOP, Script
from helpers.tiny_tokenizers import word_pieces

WIDTH = 4


def vector_card(model: str, vectors: VectorFacts) -> ModelCard:
    """Of a model with the tokenizer of word pieces."""
    card = ModelCard()
    card.CopyFrom(CARD)
    card.model, card.tokenizer_digest, card.max_slots = model, "t2", 256
    card.vocabulary_size = word_pieces().get_vocab_size()
    card.vectors.CopyFrom(vectors)
    return card


EMBEDDER = vector_card(
    "minilm",
    VectorFacts(
        task=ModelTask.MODEL_TASK_EMBED,
        dimensions=WIDTH,
        prompts={"query": "river ", "document": "mill "},
    ),
)
UNIT = vector_card(
    "unit", VectorFacts(task=ModelTask.MODEL_TASK_EMBED, dimensions=4, normalised=True)
)
WIDE = vector_card("wide", VectorFacts(task=ModelTask.MODEL_TASK_EMBED, dimensions=1024))
JUDGE = vector_card("judge", VectorFacts(task=ModelTask.MODEL_TASK_SCORE, dimensions=1))


def vector_for(each: Input) -> list[float]:
    """What the stand-in makes of an input: its own, and exact in float32."""
    return [float(len(each.token_ids)), float(sum(each.token_ids)), float(each.second_begins), 0.5]


def embeds(request: ValidRequest) -> Script:
    """Each input's vector, in an order of its own."""
    width = request.card.vectors.dimensions
    order = random.Random(7).sample(range(request.n), request.n)
    values = [(vector_for(each) + [0.1] * width)[:width] for each in request.inputs]
    return [[ChoiceEnded(c, STOP, struct.pack(f"<{width}f", *values[c]))] for c in order]


def encoded(*texts: str) -> list[Input]:
    return [Input(tuple(word_pieces().encode(text).ids)) for text in texts]


def paired(query: str, *documents: str) -> list[Input]:
    found = (word_pieces().encode(query, document) for document in documents)
    return [Input(tuple(each.ids), each.type_ids.index(1)) for each in found]


async def posted(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
