"""Paths, fields and bodies of servers beside OpenAI's, which clients of these send as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from headrace_gateway.request.generation import ValidRequest
from helpers.api_scripts import SAYING, says
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import Script, ScriptedAdmission
from helpers.vector_scripts import EMBEDDER, JUDGE, UNIT, embeds

HELLO = [{"role": "user", "content": "Hello"}]
UNVERSIONED: dict[str, dict[str, Any]] = {
    "/chat/completions": {"model": "valley", "messages": HELLO},
    "/completions": {"model": "valley", "prompt": "Hello"},
    "/embeddings": {"model": "minilm", "input": "the mill"},
    "/responses": {"model": "valley", "input": "Hello", "store": False},
}


def either(request: ValidRequest) -> Script:
    return embeds(request) if request.card.HasField("vectors") else says(request)


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(either)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, EMBEDDER, UNIT, JUDGE) as running:
        yield running


async def test_paths_are_served_without_their_version(http: httpx.AsyncClient) -> None:
    for path, body in UNVERSIONED.items():
        answers = [await http.post(each, json=body) for each in (path, f"/v1{path}")]
        assert [each.status_code for each in answers] == [200, 200], answers[0].text
        kinds = [each.json()["object"] for each in answers]
        assert kinds[0] == kinds[1]
        broken = await http.post(path, content=b"{")
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_request")
    listed = [(await http.get(path)).json()["data"] for path in ("/models", "/v1/models")]
    assert listed[0] == listed[1]


async def test_a_model_may_be_left_out_where_there_is_one(http: httpx.AsyncClient) -> None:
    body = {"query": "the river", "documents": ["the mill"]}
    assert (await http.post("/v1/rerank", json=body)).json()["model"] == "judge"
    refused = await http.post("/v1/embeddings", json={"input": "the mill"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "model")
    assert "there are 2 models for this: minilm, unit" in error["message"]


async def test_what_is_made_without_the_version_is_found_without_it(
    http: httpx.AsyncClient,
) -> None:
    made = (await http.post("/responses", json={"model": "valley", "input": "Hello"})).json()
    own = f"/responses/{made['id']}"
    for path in (own, f"{own}/input_items", "/models/valley"):
        answers = [await http.get(each) for each in (path, f"/v1{path}")]
        assert [each.status_code for each in answers] == [200, 200], answers[0].text
        assert answers[0].json() == answers[1].json()
    counted = await http.post("/responses/input_tokens", json={"model": "valley", "input": "a"})
    assert counted.json()["object"] == "response.input_tokens"
    cancelled = await http.post(f"{own}/cancel")
    assert (cancelled.status_code, "background" in cancelled.text) == (400, True)
    assert (await http.delete(own)).json()["deleted"] is True
    assert (await http.get(own)).status_code == 404


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
async def test_a_response_without_a_model_is_of_the_only_one_that_makes_text(
    http: httpx.AsyncClient, path: str
) -> None:
    refused = await http.post(path, json={"input": "Hello"})
    assert refused.status_code == 400
    assert "there are 2 models for this: asleep, valley; name one" in refused.text


async def test_a_prompt_of_tokens_is_echoed_with_its_special_tokens(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    ended = (await http.post("/tokenize", json={"model": "valley", "prompt": "<|im_end|>"})).json()
    texts = []
    for prompt in (ended["tokens"], "<|im_end|>"):
        answer = await client.completions.create(model="valley", prompt=prompt, echo=True)
        texts.append(answer.choices[0].text)
    assert texts[0] == texts[1]
    assert texts[0].endswith(SAYING)


async def test_every_event_of_a_completion_has_text_and_the_last_its_end(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "valley", "prompt": "Hello", "stream": True, "max_tokens": 3}
    lines = (await http.post("/v1/completions", json=body)).text.splitlines()
    events = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert [event["finish_reason"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["finish_reason"] is not None


async def test_texts_and_token_ids_are_embedded_side_by_side(http: httpx.AsyncClient) -> None:
    inputs = ["the mill", [5, 6]]
    body = {"model": "minilm", "input": inputs}
    both = (await http.post("/v1/embeddings", json=body)).json()["data"]
    for at, one in enumerate(inputs):
        alone = (await http.post("/v1/embeddings", json=body | {"input": one})).json()["data"]
        assert both[at]["embedding"] == alone[0]["embedding"]


async def test_vectors_are_given_length_one_where_that_is_requested(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "minilm", "input": "the mill", "normalize": True}
    (only,) = (await http.post("/v1/embeddings", json=body)).json()["data"]
    assert abs(sum(each * each for each in only["embedding"]) - 1) < 1e-5
    always = body | {"model": "unit", "normalize": False}
    refused = (await http.post("/v1/embeddings", json=always)).json()["error"]
    assert (refused["code"], refused["param"]) == ("unsupported", "normalize")


async def test_texts_are_ranked_up_to_top_n(http: httpx.AsyncClient) -> None:
    body = {"query": "the river", "texts": ["a", "b", "c"], "top_n": 2}
    answer = await http.post("/rerank", json=body)
    assert len(answer.json()) == 2
    assert (await http.post("/rerank", json=body | {"top_n": 0})).status_code == 400
