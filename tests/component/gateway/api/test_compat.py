"""Ranks, scores and vectors by the paths of Cohere, vLLM and TEI, through Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.errors import EngineFailed, LaneFull
from headrace_gateway.request.generation import Failed
from helpers.eventually import eventually
from helpers.running_api import CARD, RunningApi, running_api
from helpers.running_edge import running_edge, until
from helpers.scripted_admission import ScriptedAdmission
from helpers.vector_scripts import (
    EMBEDDER,
    JUDGE,
    UNIT,
    embeds,
    encoded,
    paired,
    posted,
    vector_for,
)

TEXTS = ["the mill", "the mill and the wheel turns", "the mill and the wheel"]


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(embeds)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, EMBEDDER, UNIT, JUDGE) as running:
        yield running


@pytest.fixture
async def only_minilm(
    admission: ScriptedAdmission, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """The API with one model that makes vectors."""
    async with running_api(admission, EMBEDDER) as api, running_edge(tmp_path) as running:
        running.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{running.url}/v1/models")
        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
            yield client


def relevances(query: str, texts: list[str]) -> list[float]:
    """What the stand-in's judge makes of each pair."""
    return [vector_for(each)[0] for each in paired(query, *texts)]


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    norms: float = (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5
    return dot / norms


async def test_rerank_is_the_same_under_both_of_its_names(http: httpx.AsyncClient) -> None:
    body = {"model": "judge", "query": "the river", "documents": TEXTS}
    answers = [await posted(http, path, body) for path in ("/v1/rerank", "/rerank")]
    assert answers[0]["results"] == answers[1]["results"]
    assert [each["index"] for each in answers[0]["results"]] == [1, 2, 0]


async def test_cohere_is_answered_in_its_own_shape(http: httpx.AsyncClient) -> None:
    body = {"model": "judge", "query": "the river", "documents": TEXTS}
    answer = await posted(http, "/v2/rerank", body)
    scores = relevances("the river", TEXTS)
    assert answer["results"] == [{"index": i, "relevance_score": scores[i]} for i in (1, 2, 0)]
    assert set(answer) == {"id", "results", "meta"}
    assert answer["meta"]["api_version"]["version"] == "2"
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    pairs = paired("the river", *TEXTS)
    tokens = sum(len(each.token_ids) for each in pairs)
    assert answer["meta"]["tokens"] == {"input_tokens": tokens}
    best = await posted(http, "/v2/rerank", body | {"top_n": 1, "return_documents": True})
    assert best["results"] == [
        {"index": 1, "relevance_score": scores[1], "document": {"text": TEXTS[1]}}
    ]


async def test_unknown_fields_are_treated_on_these_paths_as_on_others(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "judge", "query": "a", "documents": ["b"], "foo": 1}
    answer = await http.post("/v2/rerank", json=body)
    assert (answer.status_code, answer.headers["x-headrace-ignored"]) == (200, "foo")
    strict = {"x-headrace-strict-fields": "true"}
    refused = await http.post("/v2/rerank", json=body, headers=strict)
    assert refused.status_code == 400
    assert "foo" in refused.json()["message"]


async def test_cohere_truncates_documents_to_the_tokens_that_are_requested(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    body = {"model": "judge", "query": "the river", "documents": TEXTS, "max_tokens_per_doc": 2}
    await posted(http, "/v2/rerank", body)
    assert list(admission.last.request.inputs) == paired("the river", *["the mill"] * 3)
    long = body | {"documents": ["river " * 5000], "max_tokens_per_doc": None}
    await posted(http, "/v2/rerank", long)
    assert admission.last.request.prompt_tokens == CARD.context_tokens


COHERE_REFUSALS: list[tuple[dict[str, Any], int, str]] = [
    ({"query": None}, 400, "query: "),
    ({"documents": []}, 400, "documents has 0 entries; it may have 1 to 2048"),
    ({"documents": "a"}, 400, "documents: should be a list of texts"),
    ({"documents": ["a", 1]}, 400, "document 1 is neither a text"),
    ({"documents": ["a"] * 2049}, 400, "documents has 2049 entries"),
    ({"top_n": 0}, 400, "top_n is 0"),
    ({"max_tokens_per_doc": 0}, 400, "max_tokens_per_doc: "),
    ({"model": "nobody"}, 404, "known models: "),
    ({"model": "valley"}, 400, "model valley makes text"),
]


async def test_cohere_is_refused_in_its_own_shape(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    good: dict[str, Any] = {"model": "judge", "query": "a", "documents": ["b"]}
    for fields, status, words in COHERE_REFUSALS:
        answer = await http.post("/v2/rerank", json=good | fields)
        assert (answer.status_code, set(answer.json())) == (status, {"message"}), fields
        assert words in answer.json()["message"], fields
    for data in (b"", b"{", b"[]"):
        assert set((await http.post("/v2/rerank", content=data)).json()) == {"message"}
    assert admission.generations == []
    admission.refusal = LaneFull("the lane is full", retry_after_s=2)
    full = await http.post("/v2/rerank", json=good)
    assert (full.status_code, full.headers["retry-after"]) == (429, "2")
    assert full.json() == {"message": "the lane is full"}
    admission.refusal = None
    admission.script = lambda request: [[Failed(EngineFailed("poisoned"))]]
    failed = await http.post("/v2/rerank", json=good)
    assert (failed.status_code, failed.json()) == (500, {"message": "poisoned"})


SIDES = [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
async def test_texts_are_scored_by_vllms_names(http: httpx.AsyncClient, path: str) -> None:
    for first, second in SIDES:
        body = {"model": "judge", first: "the river", second: TEXTS}
        answer = await posted(http, path, body)
        assert (answer["object"], answer["model"]) == ("list", "judge")
        assert answer["data"] == [
            {"index": i, "object": "score", "score": score}
            for i, score in enumerate(relevances("the river", TEXTS))
        ]
        tokens = sum(len(each.token_ids) for each in paired("the river", *TEXTS))
        assert answer["usage"]["total_tokens"] == tokens
        assert answer["created"] == 1_700_000_000


async def test_two_sides_are_one_to_one_one_to_many_or_by_place(http: httpx.AsyncClient) -> None:
    one = await posted(http, "/score", {"model": "judge", "text_1": "a", "text_2": "the mill"})
    assert [each["score"] for each in one["data"]] == relevances("a", ["the mill"])
    queries = ["the river", "the wheel", "a"]
    many = await posted(http, "/score", {"model": "judge", "text_1": queries, "text_2": TEXTS})
    expected = [relevances(q, [t])[0] for q, t in zip(queries, TEXTS, strict=True)]
    assert [each["score"] for each in many["data"]] == expected


async def test_a_model_that_embeds_scores_by_the_cosine(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    queries = ["the river", "the wheel", "wheel"]
    body = {"model": "minilm", "text_1": queries, "text_2": TEXTS}
    answer = await posted(http, "/score", body)
    asked = [vector_for(each) for each in encoded(*(f"river {each}" for each in queries))]
    documents = [vector_for(each) for each in encoded(*(f"mill {each}" for each in TEXTS))]
    expected = [cosine(q, d) for q, d in zip(asked, documents, strict=True)]
    assert [each["score"] for each in answer["data"]] == pytest.approx(expected)
    ranked = {"model": "minilm", "query": "the river", "documents": TEXTS[:1]}
    (best,) = (await posted(http, "/rerank", ranked))["results"]
    assert best["relevance_score"] == answer["data"][0]["score"]
    await eventually(lambda: all(each.ends == 1 for each in admission.generations))


SCORE_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"text_2": None}, "text_1", "there is text_1"),
    ({"text_1": None, "text_2": None}, "text_1", "there is none of them"),
    ({"data_1": "b"}, "text_1", "there is data_1 and text_1 and text_2"),
    ({"text_1": 1}, "text_1", "should be a text or a list of texts"),
    ({"text_2": ["a", 1]}, "text_2", "should be a text or a list of texts"),
    ({"text_2": {"content": []}}, "text_2", "should be a text or a list of texts"),
    ({"text_1": []}, "text_1", "text_1 has 0 entries"),
    ({"text_2": []}, "text_2", "text_2 has 0 entries"),
    ({"text_1": ["a", "b"]}, "text_1", "text_1 has 2 texts and text_2 has 1"),
    ({"text_2": ["a"] * 2049}, "text_2", "text_2 has 2049 entries"),
    ({"text_2": ["a", "river " * 300]}, "text_2[1]", "text_2[1] has "),
    ({"model": "valley"}, "model", "model valley makes text"),
]


async def test_what_cannot_be_scored_is_refused_by_its_field(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for fields, param, words in SCORE_REFUSALS:
        body = {"model": "judge", "text_1": "a", "text_2": "b"} | fields
        answer = await http.post("/v1/score", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param), (fields, error)
        assert words in error["message"], (fields, error)
    assert admission.generations == []


async def test_tei_gets_a_list_of_vectors_of_length_one(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for inputs in ("the river", ["the river", "the mill"], [2, 9, 3], [[2, 9, 3], [5]]):
        vectors = await posted(http, "/embed", {"model": "minilm", "inputs": inputs})
        for vector, each in zip(vectors, admission.last.request.inputs, strict=True):
            values = vector_for(each)
            length = sum(value * value for value in values) ** 0.5
            assert vector == pytest.approx([value / length for value in values], rel=1e-6)
    plain = await posted(http, "/embed", {"model": "minilm", "inputs": "a", "normalize": False})
    assert plain == [vector_for(encoded("a")[0])]
    as_they_are = await posted(http, "/embed", {"model": "unit", "inputs": "a"})
    assert as_they_are == [vector_for(encoded("a")[0])], "what has length 1 is not computed again"
    cut = {"model": "minilm", "inputs": "river " * 300, "truncate": True, "normalize": None}
    assert len(await posted(http, "/embed", cut)) == 1
    assert admission.last.request.prompt_tokens == CARD.context_tokens


async def test_tei_gets_ranks_of_texts(http: httpx.AsyncClient) -> None:
    body = {"model": "judge", "query": 'say "documents": or not', "texts": TEXTS}
    scores = relevances('say "documents": or not', TEXTS)
    ranks = await posted(http, "/rerank", body)
    assert ranks == [{"index": i, "score": scores[i]} for i in (1, 2, 0)]
    told = await posted(http, "/rerank", body | {"return_text": True})
    assert told[0] == {"index": 1, "text": TEXTS[1], "score": scores[1]}


async def test_without_a_name_the_one_model_that_scores_ranks_though_others_embed(
    http: httpx.AsyncClient,
) -> None:
    """Clients of text-embeddings-inference name no model, and most meshes have both."""
    ranks = await posted(http, "/rerank", {"query": "the river", "texts": TEXTS})
    assert [rank["score"] for rank in ranks] == sorted(relevances("the river", TEXTS))[::-1]
    pairs = {"text_1": "the river", "text_2": TEXTS}
    assert (await posted(http, "/score", pairs))["model"] == "judge"
    await posted(http, "/v2/rerank", {"query": "the river", "documents": TEXTS, "model": None})
    refused = await http.post("/embed", json={"inputs": "a"})
    assert "there are 2 models for this: minilm, unit; name one" in refused.json()["error"]


TEI_REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("/embed", {"inputs": 1}, "inputs: should be a text, a list of texts"),
    ("/embed", {"inputs": []}, "inputs has 0 entries"),
    ("/embed", {"inputs": ["a", ""] * 2000}, "inputs has 4000 entries"),
    ("/embed", {}, "inputs: is missing"),
    ("/embed", {"inputs": "river " * 300}, "or set truncate"),
    ("/embed", {"inputs": "a", "model": "judge"}, "model judge scores documents"),
    ("/embed", {"inputs": "a", "model": "unit", "normalize": False}, "always have length 1"),
    ("/embed", {"inputs": "a", "truncate": "yes"}, "truncate: "),
    ("/embed", {"inputs": "a", "model": None}, "minilm, unit"),
    ("/rerank", {"query": "a", "texts": "b"}, "texts: "),
    ("/rerank", {"query": "a", "texts": ["b", 1]}, "texts[1]: "),
    ("/rerank", {"query": "a", "texts": []}, "texts has 0 entries"),
    ("/rerank", {"texts": ["b"]}, "query: is missing"),
    ("/rerank", {"query": "a", "texts": ["b"], "raw_scores": True}, "raw_scores"),
    ("/rerank", {"query": "a", "texts": ["b"], "model": "valley"}, "model valley makes text"),
]


async def test_tei_is_refused_in_its_own_shape(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for path, fields, words in TEI_REFUSALS:
        answer = await http.post(path, json={"model": "minilm"} | fields)
        error = answer.json()
        assert (answer.status_code, set(error)) == (400, {"error", "error_type"}), fields
        assert error["error_type"] == "Validation"
        assert words in error["error"], (fields, error)
    assert admission.generations == []
    admission.refusal = LaneFull("the lane is full", retry_after_s=2)
    full = await http.post("/embed", json={"model": "minilm", "inputs": "a"})
    assert (full.status_code, full.json()["error_type"]) == (429, "Overloaded")


async def test_where_one_model_can_do_it_none_has_to_be_named(
    admission: ScriptedAdmission, only_minilm: httpx.AsyncClient
) -> None:
    http = only_minilm
    assert (await posted(http, "/embed", {"inputs": "the river"})) != []
    assert (await posted(http, "/rerank", {"query": "a", "texts": ["the", "mill"]})) != []
    scored = await posted(http, "/score", {"text_1": "a", "text_2": "the"})
    assert scored["model"] == "minilm"
    assert [each.request.card.model for each in admission.generations] == ["minilm"] * 3


@pytest.mark.parametrize(
    "path",
    ["/decode", "/v1/complete"],
)
async def test_what_is_not_served_is_an_unknown_path(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.post(path, json={"inputs": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")
