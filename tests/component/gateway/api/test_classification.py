"""Labels of texts, by the paths of vLLM, TEI and OpenAI's moderations, through Envoy."""

from __future__ import annotations

import math
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import ModerationCreateResponse

from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.request.generation import ChoiceEnded, Input, ValidRequest
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import STOP, Script, ScriptedAdmission
from helpers.vector_scripts import EMBEDDER, JUDGE, encoded, paired, posted, vector_card, vector_for

TEXTS = ["the mill", "the mill and the wheel turns"]


def classifier(model: str, *labels: str, multi: bool = False) -> ModelCard:
    task = ModelTask.MODEL_TASK_CLASSIFY
    return vector_card(
        model, VectorFacts(task=task, dimensions=len(labels), labels=labels, multi_label=multi)
    )


MODERATOR = classifier("moderator", "toxic", "identity_hate", "insult", multi=True)
MOOD = classifier("mood", "calm", "wild")


def logits_for(each: Input, labels: int) -> list[float]:
    """What the stand-in makes of an input: its own, and small."""
    return [len(each.token_ids) / 4 - label + each.second_begins / 2 for label in range(labels)]


def classifies(request: ValidRequest) -> Script:
    width = request.card.vectors.dimensions
    make = logits_for if request.card.vectors.labels else (lambda each, width: vector_for(each))
    values = [(make(each, width) + [0.0] * width)[:width] for each in request.inputs]
    return [
        [ChoiceEnded(choice, STOP, struct.pack(f"<{width}f", *value))]
        for choice, value in enumerate(values)
    ]


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(each) for each in logits]
    return [each / sum(powers) for each in powers]


def sigmoid(logits: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-each)) for each in logits]


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(classifies)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    limits = GatewaySettings(moderation_model="moderator", moderation_threshold=0.75)
    async with running_api(admission, EMBEDDER, JUDGE, MODERATOR, MOOD, limits=limits) as running:
        yield running


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
async def test_vllm_gets_the_probabilities_of_all_labels(
    http: httpx.AsyncClient, path: str
) -> None:
    answer = await posted(http, path, {"model": "mood", "input": TEXTS})
    expected = [softmax(logits_for(each, 2)) for each in encoded(*TEXTS)]
    assert [each["probs"] for each in answer["data"]] == [pytest.approx(p) for p in expected]
    assert [(each["index"], each["label"], each["num_classes"]) for each in answer["data"]] == [
        (0, "calm", 2),
        (1, "calm", 2),
    ]
    tokens = sum(len(each.token_ids) for each in encoded(*TEXTS))
    assert answer["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
    }
    raw = await posted(http, path, {"model": "mood", "input": TEXTS[0], "use_activation": False})
    assert raw["data"][0]["probs"] == pytest.approx(logits_for(encoded(TEXTS[0])[0], 2))


async def test_pooling_gives_what_a_model_makes(http: httpx.AsyncClient) -> None:
    (each,) = encoded(TEXTS[0])
    expected = {
        "minilm": vector_for(each),
        "mood": softmax(logits_for(each, 2)),
        "judge": vector_for(each)[:1],
    }
    for model, values in expected.items():
        answer = await posted(http, "/pooling", {"model": model, "input": TEXTS[0]})
        (entry,) = answer["data"]
        assert (entry["object"], entry["data"]) == ("pooling", pytest.approx(values)), model
    body = {"model": "mood", "input": TEXTS[0], "encoding_format": "base64", "task": "classify"}
    (entry,) = (await posted(http, "/v1/pooling", body))["data"]
    assert struct.unpack("<2f", b64decode(entry["data"])) == pytest.approx(expected["mood"])


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/classify", {"model": "minilm", "input": "a"}, "makes vectors of texts"),
        ("/classify", {"model": "mood", "messages": []}, "messages is not served"),
        ("/classify", {"model": "mood"}, "input: is missing"),
        ("/pooling", {"model": "mood", "input": "a", "task": "token_embed"}, "it may be classify"),
        ("/pooling", {"model": "mood", "input": "a", "dimensions": 1}, "makes no vectors"),
        ("/pooling", {"model": "judge", "input": "a", "use_activation": False}, "one form"),
        ("/v1/embeddings", {"model": "mood", "input": "a"}, "sorts texts into classes"),
        ("/v1/rerank", {"model": "mood", "query": "a", "documents": ["b"]}, "into classes"),
    ],
)
async def test_what_a_model_does_not_do_is_refused(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], words: str
) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_tei_gets_the_labels_best_first(http: httpx.AsyncClient) -> None:
    one, other = encoded(*TEXTS)
    (pair,) = paired(*TEXTS)
    body: dict[str, Any] = {"model": "mood"}
    single = await posted(http, "/predict", body | {"inputs": TEXTS[0]})
    assert [each["label"] for each in single] == ["calm", "wild"]
    assert [each["score"] for each in single] == pytest.approx(softmax(logits_for(one, 2)))
    both = await posted(http, "/predict", body | {"inputs": TEXTS})
    assert [each["score"] for each in both] == pytest.approx(softmax(logits_for(pair, 2)))
    several = await posted(
        http, "/predict", body | {"inputs": [[TEXTS[1]], TEXTS], "raw_scores": True}
    )
    assert [[each["score"] for each in entry] for entry in several] == [
        pytest.approx(logits_for(other, 2)),
        pytest.approx(logits_for(pair, 2)),
    ]


async def test_tei_compares_sentences(http: httpx.AsyncClient) -> None:
    given = {"source_sentence": TEXTS[0], "sentences": [TEXTS[0], TEXTS[1]]}
    same, other = await posted(http, "/similarity", {"inputs": given})
    assert same == pytest.approx(1)
    assert other < 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": [["a", "b", "c"]]}),
        ("/predict", {"inputs": 1}),
        ("/similarity", {"inputs": {"sentences": ["a"]}}),
        ("/embed_sparse", {"inputs": "a"}),
        ("/embed_all", {"inputs": "a"}),
    ],
)
async def test_tei_is_refused_in_its_own_shape(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json={"model": "mood"} | body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "error_type"}
    missing = await http.get(path)
    assert (missing.status_code, set(missing.json())) == (404, {"error", "error_type"})


@pytest.mark.parametrize("model", [openai.omit, "omni-moderation-latest", "moderator"])
async def test_openais_client_gets_its_categories(client: openai.AsyncOpenAI, model: Any) -> None:
    answer = await client.moderations.create(input=TEXTS, model=model)
    assert answer.model == "moderator"
    for each, result in zip(encoded(*TEXTS), answer.results, strict=True):
        toxic, hate, insult = sigmoid(logits_for(each, 3))
        assert result.category_scores.harassment == pytest.approx(max(toxic, insult))
        assert result.category_scores.hate == pytest.approx(hate)
        assert result.category_scores.violence == 0
        assert result.categories.hate == (hate >= 0.75)
        assert result.flagged == (max(toxic, hate, insult) >= 0.75)
    assert {result.flagged for result in answer.results} == {True, False}


async def test_a_moderation_is_openais_to_the_last_field(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/moderations", json={"input": [{"type": "text", "text": "a"}]})
    model = ModerationCreateResponse.model_validate_json(answer.content, strict=True)
    (result,) = model.results
    parts = (model, result, result.categories, result.category_scores)
    assert [part.model_extra for part in (*parts, result.category_applied_input_types)] == [{}] * 5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": "a", "model": "mood"}, "label 'calm', for which no category is set"),
        ({"input": "a", "model": "minilm"}, "makes vectors of texts"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "only text is read"),
        ({"input": 1}, "input: should be a text"),
        ({"input": []}, "input has 0 entries"),
    ],
)
async def test_what_cannot_be_moderated_is_refused(
    http: httpx.AsyncClient, admission: ScriptedAdmission, body: dict[str, Any], words: str
) -> None:
    answer = await http.post("/v1/moderations", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert not admission.generations
