"""Several prompts in one call, and the paths of other servers, on a whole mesh with real models."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest

from headrace_worker.serving.models import DEFAULT_MODEL
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop
from helpers.tiny_encoders import save_encoder, tiny_encoder

GATEWAYS = ("gateway-0", "gateway-1")
TOKENS = 12
PROMPTS = [
    "Who bakes the bread in the valley?",
    "The mill stands",
    "Count: one, two,",
    "A river",
    "The mill stands",
]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    folder = tmp_path_factory.mktemp("paths")
    judge = save_encoder(folder / "judge", tiny_encoder(scores=True))
    models = ("--model", f"{DEFAULT_MODEL}=valley", "--model", f"{judge}=judge")
    few = ("--set", "gateway.prompts_at_once=3")
    options = ("--engine", "transformers", "--threads", "1", "--gateways", "2")
    running = start(folder / ".headrace", *options, *models, *few)
    yield FreshMesh(folder, running.url)
    stop(running)


@pytest.fixture
async def client(mesh: FreshMesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def http(mesh: FreshMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as client:
        yield client


async def until_nothing_is_held(mesh: FreshMesh) -> None:
    async def nothing() -> bool:
        names = ("headrace_gateway_open_requests", "headrace_gateway_unsettled_requests")
        return sum([await mesh.counted(g, name) for g in GATEWAYS for name in names]) == 0

    await eventually(nothing, within_s=30)


async def executions(mesh: FreshMesh) -> float:
    await until_nothing_is_held(mesh)
    return sum([await mesh.counted(g, "headrace_gateway_requests_total") for g in GATEWAYS])


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7, "n": 2}])
async def test_each_of_several_prompts_is_answered_as_it_is_alone(
    client: openai.AsyncOpenAI, sampling: dict[str, Any]
) -> None:
    common: dict[str, Any] = {"model": "valley", "max_tokens": TOKENS} | sampling
    alone = [await client.completions.create(prompt=prompt, **common) for prompt in PROMPTS]
    texts = [choice.text for answer in alone for choice in answer.choices]
    whole = await client.completions.create(prompt=PROMPTS, **common)
    assert [choice.index for choice in whole.choices] == list(range(len(texts)))
    assert [choice.text for choice in whole.choices] == texts
    assert whole.usage is not None
    assert whole.usage.total_tokens == sum(
        answer.usage.total_tokens for answer in alone if answer.usage
    )
    texts_by_choice: dict[int, str] = defaultdict(str)
    async for chunk in await client.completions.create(prompt=PROMPTS, stream=True, **common):
        for choice in chunk.choices:
            texts_by_choice[choice.index] += choice.text
    assert texts_by_choice == dict(enumerate(texts))


async def test_a_repeated_call_with_several_prompts_runs_once(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    before = await executions(mesh)
    # Long enough for a prompt to be running still when the other gateway submits it.
    common = {"model": "valley", "max_tokens": 100, "ignore_eos": True, "temperature": 1.0}
    body = common | {"prompt": PROMPTS}
    sends = [
        http.post("/v1/completions", json=body, headers={"idempotency-key": "several"})
        for _ in range(3)
    ]
    answers = [answer.json() for answer in await asyncio.gather(*sends)]
    assert [answer["choices"] for answer in answers] == [answers[0]["choices"]] * 3
    assert {answer["id"] for answer in answers} == {answers[0]["id"]}
    same = [answers[0]["choices"][place]["text"] for place in (1, 4)]
    assert same[0] != same[1], "equal prompts are sampled apart"
    assert await executions(mesh) == before + len(PROMPTS)


async def test_closing_the_connection_cancels_all_prompts_of_a_call(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    body = {
        "model": "valley",
        "prompt": PROMPTS * 4,
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": True,
    }
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                break
    await until_nothing_is_held(mesh)
    workers = (await http.get("/v2/workers")).json()["workers"]
    assert all(worker["free_slots"] == worker["total_slots"] for worker in workers)
    good = await http.post("/v1/completions", json=body | {"max_tokens": 2, "stream": False})
    assert len(good.json()["choices"]) == len(PROMPTS) * 4


async def test_all_rerank_endpoints_give_the_same_scores(http: httpx.AsyncClient) -> None:
    query, texts = "the mill", ["the stone", "the mill", "the river mill the wheel"]
    bodies_by_path: dict[str, dict[str, Any]] = {
        "/v1/rerank": {"model": "judge", "documents": texts},
        "/v2/rerank": {"model": "judge", "documents": texts},
        "/rerank": {"texts": texts},
    }
    bodies = [
        http.post(path, json={"query": query} | body) for path, body in bodies_by_path.items()
    ]
    reranked, cohere, tei = [answer.json() for answer in await asyncio.gather(*bodies)]
    scored = await http.post("/score", json={"text_1": query, "text_2": texts})
    scores = {each["index"]: each["score"] for each in scored.json()["data"]}
    best_first = sorted(scores, key=lambda index: -scores[index])
    for found, name in (
        (reranked["results"], "relevance_score"),
        (cohere["results"], "relevance_score"),
        (tei, "score"),
    ):
        assert [each["index"] for each in found] == best_first
        values = [each[name] for each in found]
        assert values == pytest.approx([scores[index] for index in best_first], rel=1e-5)


async def test_token_ids_are_accepted_as_a_prompt(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    tokens = []
    for prompt in PROMPTS:
        tokenized = await http.post("/tokenize", json={"model": "valley", "prompt": prompt})
        tokens.append(tokenized.json()["tokens"])
    common: dict[str, Any] = {"model": "valley", "max_tokens": TOKENS, "temperature": 0}
    by_ids = await client.completions.create(prompt=tokens, **common)
    by_text = await client.completions.create(prompt=PROMPTS, **common)
    assert [each.text for each in by_ids.choices] == [each.text for each in by_text.choices]
    chat = {"model": "valley", "messages": [{"role": "user", "content": PROMPTS[0]}]}
    counted = (await http.post("/tokenize", json=chat)).json()["count"]
    answer = (await http.post("/v1/chat/completions", json=chat | {"max_tokens": 1})).json()
    assert answer["usage"]["prompt_tokens"] == counted
    back = await http.post("/detokenize", json={"model": "valley", "tokens": tokens[0]})
    assert back.json()["prompt"].endswith(PROMPTS[0])
