"""Embeddings and rerank in the HTTP and the gRPC API, through Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import openai
import pytest

from headrace.errors import EngineFailed, RateLimitExceeded
from headrace.internal.v1.quota_pb2 import LimitKind, LimitState
from headrace.v1.embeddings_pb2 import EmbedInput, EmbedRequest, RerankRequest
from headrace.v1.embeddings_pb2_grpc import EmbeddingServiceStub
from headrace_gateway.request.generation import Failed, Input, ValidRequest
from helpers.eventually import eventually
from helpers.running_api import CARD, RunningApi, running_api
from helpers.scripted_admission import Script, ScriptedAdmission, ScriptedGeneration
from helpers.vector_scripts import EMBEDDER, JUDGE, WIDE, WIDTH, embeds, encoded, paired, vector_for

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(embeds)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, EMBEDDER, WIDE, JUDGE) as running:
        yield running


async def all_ended(generations: list[ScriptedGeneration]) -> None:
    """Each by exactly one of settle and abandon."""
    await eventually(lambda: all(each.ends == 1 for each in generations))


async def test_vectors_come_as_numbers_and_as_base64(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    texts = ["the river", "the mill and the wheel"]
    expected = [vector_for(each) for each in encoded(*texts)]
    for chosen in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        options: Any = chosen
        answer = await client.embeddings.create(model="minilm", input=texts, **options)
        assert [each.index for each in answer.data] == [0, 1]
        if chosen.get("encoding_format") != "base64":
            assert [each.embedding for each in answer.data] == expected
        tokens = sum(len(each.token_ids) for each in encoded(*texts))
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
        assert answer.model == "minilm"
    await all_ended(admission.generations)
    (outcome,) = admission.last.settled
    assert outcome.usage.prompt_tokens == tokens
    assert not outcome.choices


async def test_an_input_is_a_text_or_token_ids_or_a_list_of_either(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    given: list[tuple[Any, list[Input]]] = [
        ("the river", encoded("the river")),
        (["the river"], encoded("the river")),
        ([2, 9, 3], [Input((2, 9, 3))]),
        ([[2, 9, 3], [5]], [Input((2, 9, 3)), Input((5,))]),
    ]
    for value, inputs in given:
        answer = await client.embeddings.create(model="minilm", input=value)
        assert [each.embedding for each in answer.data] == [vector_for(each) for each in inputs]
        assert list(admission.last.request.inputs) == inputs


async def test_a_hundred_inputs_are_several_requests_and_one_answer(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    texts = ["the river " * (number % 7 + 1) + str(number) for number in range(100)]
    answer = await client.embeddings.create(model="minilm", input=texts)
    assert [each.embedding for each in answer.data] == list(map(vector_for, encoded(*texts)))
    assert [each.request.n for each in admission.generations] == [32, 32, 32, 4]
    await all_ended(admission.generations)
    assert all(each.settled for each in admission.generations)


async def test_an_answer_may_be_larger_than_any_message(http: httpx.AsyncClient) -> None:
    texts = [f"the river {number}" for number in range(900)]
    body = {"model": "wide", "input": texts, "encoding_format": "float"}
    answer = await http.post("/v1/embeddings", json=body)
    assert len(answer.content) > 16 * 1024 * 1024
    data = answer.json()["data"]
    assert [each["embedding"][:4] for each in data] == list(map(vector_for, encoded(*texts)))
    assert {len(each["embedding"]) for each in data} == {1024}


async def test_fewer_dimensions_have_length_one_again(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="minilm", input=[2, 9, 3], dimensions=2)
    assert answer.data[0].embedding == pytest.approx([3 / 205**0.5, 14 / 205**0.5], rel=1e-6)


async def test_a_prompt_of_the_models_goes_before_a_text(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    await client.embeddings.create(
        model="minilm", input="the wheel", extra_body={"prompt_name": "query"}
    )
    assert list(admission.last.request.inputs) == encoded("river the wheel")


async def test_a_text_that_is_too_long_is_truncated_only_where_that_is_requested(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    long = "river " * 300
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] has 302 tokens") as refused:
        await client.embeddings.create(model="minilm", input=["a", long])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input[1]")
    for cut, tokens in ((-1, CARD.context_tokens), (5, 5)):
        extra = {"truncate_prompt_tokens": cut}
        await client.embeddings.create(model="minilm", input=long, extra_body=extra)
        assert admission.last.request.prompt_tokens == tokens


REFUSALS: list[tuple[str, dict[str, object], str, str]] = [
    ("embeddings", {"input": []}, "invalid_request", "input"),
    ("embeddings", {"input": ["a", 1]}, "invalid_request", "input"),
    ("embeddings", {"input": {"text": "a"}}, "invalid_request", "input"),
    ("embeddings", {"input": "a", "dimensions": 5}, "invalid_request", "dimensions"),
    ("embeddings", {"input": "a", "prompt_name": "x"}, "invalid_request", "prompt_name"),
    ("embeddings", {"input": "a", "user": 1}, "invalid_request", "user"),
    ("embeddings", {"input": "a", "model": "valley"}, "unsupported", "model"),
    ("embeddings", {"input": "a", "model": "judge"}, "unsupported", "model"),
    ("chat/completions", {"messages": HELLO}, "unsupported", "model"),
    ("completions", {"prompt": "a"}, "unsupported", "model"),
    ("rerank", {"query": "a", "documents": []}, "invalid_request", "documents"),
    ("rerank", {"query": "a", "documents": [{"title": "b"}]}, "invalid_request", "documents"),
    ("rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "invalid_request", "top_n"),
    ("rerank", {"query": "a", "documents": ["b"], "model": "valley"}, "unsupported", "model"),
]


async def test_refusals_name_the_field(http: httpx.AsyncClient) -> None:
    for path, body, code, param in REFUSALS:
        answer = await http.post(f"/v1/{path}", json={"model": "minilm"} | body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param), body


async def test_pairs_are_scored_and_the_best_come_first(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    documents = ["the mill", "the mill and the wheel turns", "the mill and the wheel"]
    body = {"model": "judge", "query": "the river", "documents": documents}
    answer = (await http.post("/v1/rerank", json=body)).json()
    pairs = paired("the river", *documents)
    assert list(admission.last.request.inputs) == pairs
    assert [each["index"] for each in answer["results"]] == [1, 2, 0]
    assert [each["document"]["text"] for each in answer["results"]] == [
        documents[i] for i in (1, 2, 0)
    ]
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == [float(len(pairs[i].token_ids)) for i in (1, 2, 0)]
    assert answer["usage"]["total_tokens"] == sum(len(each.token_ids) for each in pairs)
    some = body | {"documents": [{"text": d} for d in documents], "top_n": 1}
    (best,) = (await http.post("/v1/rerank", json=some | {"return_documents": False})).json()[
        "results"
    ]
    assert best == {"index": 1, "relevance_score": scores[0]}


async def test_of_a_document_that_is_an_object_the_text_is_ranked(http: httpx.AsyncClient) -> None:
    documents = [{"text": "the mill", "id": 5}, {"title": "x", "text": "the mill and the wheel"}]
    body = {"model": "judge", "query": "the river", "documents": documents}
    answer = await http.post("/v1/rerank", json=body)
    assert [each["index"] for each in answer.json()["results"]] == [1, 0]
    assert answer.headers["x-headrace-ignored"] == "documents[].id, documents[].title"
    strict = {"x-headrace-strict-fields": "true"}
    refused = (await http.post("/v1/rerank", json=body, headers=strict)).json()["error"]
    assert refused["param"] == "documents[0].id"


async def test_a_model_that_embeds_ranks_by_the_cosine(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    documents = ["the wheel", "wheel", "the mill and the wheel turns the stone"]
    body = {"model": "minilm", "query": "the wheel", "documents": documents}
    answer = (await http.post("/v1/rerank", json=body)).json()
    inputs = encoded("river the wheel", *(f"mill {each}" for each in documents))
    assert list(admission.last.request.inputs) == inputs
    results = answer["results"]
    scores = [each["relevance_score"] for each in results]
    assert scores == sorted(scores, reverse=True)
    query, *others = map(vector_for, inputs)
    for each in results:
        other = others[each["index"]]
        dot = sum(a * b for a, b in zip(query, other, strict=True))
        norms = sum(a * a for a in query) ** 0.5 * sum(b * b for b in other) ** 0.5
        assert each["relevance_score"] == pytest.approx(dot / norms)


async def test_the_native_calls_are_typed(channel: grpc.aio.Channel) -> None:
    stub: Any = EmbeddingServiceStub(channel)
    inputs = [EmbedInput(text="the river"), EmbedInput(token_ids=[2, 9, 3])]
    answer = await stub.Embed(EmbedRequest(model="minilm", inputs=inputs))
    expected = [*map(vector_for, encoded("the river")), vector_for(Input((2, 9, 3)))]
    assert [list(each.values) for each in answer.vectors] == expected
    assert (answer.model, answer.usage.prompt_tokens) == ("minilm", 7)
    request = RerankRequest(model="judge", query="a", documents=["the", "the mill"], top_n=1)
    ranked = await stub.Rerank(request)
    (best,) = ranked.rankings
    assert (best.index, best.relevance) == (1, len(paired("a", "the mill")[0].token_ids))
    both = EmbedInput(text="a", token_ids=[1])
    for stray in (EmbedRequest(model="valley"), EmbedRequest(model="minilm", inputs=[both])):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Embed(stray)
        assert refused.value.code() in (
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.INVALID_ARGUMENT,
        )


async def test_the_native_calls_speak_json(http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"inputs": [{"text": "the river"}, {"token_ids": [2, 9, 3]}]}
    answer = (await http.post("/v2/models/minilm:embed", json=body)).json()
    expected = [*map(vector_for, encoded("the river")), vector_for(Input((2, 9, 3)))]
    assert [each["values"] for each in answer["vectors"]] == expected
    assert answer["usage"] == {"prompt_tokens": 7, "output_tokens": 0}
    ask = {"query": "a", "documents": ["the", "the mill"]}
    ranked = (await http.post("/v2/models/judge:rerank", json=ask)).json()
    assert [each["index"] for each in ranked["rankings"]] == [1, 0]
    model = (await http.get("/v2/models/minilm")).json()
    assert (model["task"], model["dimensions"]) == ("MODEL_TASK_EMBED", WIDTH)
    stray = {"inputs": [{"token_ids": [1, "a"]}]}
    refused = await http.post("/v2/models/minilm:embed", json=stray)
    assert refused.status_code == 400
    assert "inputs[0].token_ids: should be a list of token ids" in refused.json()["message"]


async def test_one_request_that_fails_fails_the_call_and_nothing_is_left(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    def fails_second(request: ValidRequest) -> Script:
        if request.request_id.endswith("-1"):
            return [[Failed(EngineFailed("poisoned"))]]
        return embeds(request)

    admission.script = fails_second
    with pytest.raises(openai.InternalServerError, match="poisoned"):
        await client.embeddings.create(model="minilm", input=["the river"] * 100)
    await all_ended(admission.generations)
    failed = admission.generations[1]
    assert failed.settled[0].error.message == "poisoned"
    assert [each.abandoned for each in admission.generations] == [1, 0, 1, 1]


async def test_a_lane_without_room_for_all_of_a_call_takes_none_of_it(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.bound = 2
    with pytest.raises(openai.RateLimitError):
        await client.embeddings.create(model="minilm", input=["the river"] * 100)
    await all_ended(admission.generations)
    assert [each.abandoned for each in admission.generations] == [1, 1]


QUOTA_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/embeddings", {"model": "minilm", "input": "the mill"}, "rate_limit_exceeded"),
    ("/v1/rerank", {"model": "judge", "query": "a", "documents": ["b"]}, "rate_limit_exceeded"),
    ("/v2/rerank", {"model": "judge", "query": "a", "documents": ["b"]}, "the limit is reached"),
    ("/score", {"model": "judge", "text_1": "a", "text_2": "b"}, "rate_limit_exceeded"),
    ("/embed", {"model": "minilm", "inputs": "the mill"}, "Overloaded"),
    ("/v2/models/minilm:embed", {"inputs": [{"text": "the mill"}]}, "RATE_LIMIT_EXCEEDED"),
]


@pytest.mark.parametrize(("path", "body", "fact"), QUOTA_CALLS)
async def test_limits_are_in_the_headers_of_every_api_and_refuse_in_its_own_format(
    http: httpx.AsyncClient,
    admission: ScriptedAdmission,
    path: str,
    body: dict[str, Any],
    fact: str,
) -> None:
    kind = LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE
    admission.limits = [LimitState(kind=kind, limit=20, remaining=19)]
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-remaining-requests"] == "19"
    admission.quota_refusal = RateLimitExceeded("the limit is reached", retry_after_s=2)
    refused = await http.post(path, json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert refused.headers["x-ratelimit-remaining-requests"] == "19"
    assert fact in refused.text
