"""Every path says, of 40 mixed requests at once, what transformers' `generate` says alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import anthropic
import httpx
import openai
import pytest

from headrace.client import AsyncClient
from helpers.generation_paths import Clients
from helpers.oracle import Asked, Oracle
from helpers.running_mesh import RunningMesh, start, stop
from helpers.tiny_encoders import save_encoder, save_modules, tiny_encoder

PATHS = ("chat", "completions", "responses", "messages", "native", "native_prompt")
STOPPED = ("chat", "completions", "messages", "native", "native_prompt")
OFFERING = ("chat", "responses", "messages")
REQUESTS = 40
STOPS = 10
TEXT = "the river runs past the mill and Ada's café serves tea 12345 at 你好 7 o'clock"


def mixture() -> list[Asked]:
    """Every path streamed and whole, from short prompts to long ones, some offered functions."""
    rng, words, mixed = Random(13), TEXT.split(), []
    for number in range(REQUESTS):
        path = PATHS[number % len(PATHS)]
        prompt = " ".join(rng.choices(words, k=rng.choice((1, 5, 20, 80))))
        asked = Asked(path, prompt, rng.choice((1, 2, 9, 30, 70)), stream=number % 4 < 2)
        if path in OFFERING and rng.random() < 0.5:
            asked = replace(asked, tools=("look", "listen")[: rng.randint(1, 2)])
        if path in (*OFFERING, "native") and rng.random() < 0.5:
            asked = replace(asked, system=" ".join(rng.choices(words, k=12)))
        mixed.append(asked)
    return mixed


def stopped(oracle: Oracle, mixed: list[Asked]) -> list[Asked]:
    """Some of them end at letters from the middle of what they would say."""
    left = STOPS
    for number, asked in enumerate(mixed):
        if not left or asked.path not in STOPPED or asked.max_tokens < 9:
            continue
        text = oracle.answer(asked).text
        at = next((at for at in range(len(text) // 2, len(text)) if text[at : at + 2].isalpha()), 0)
        if at and text[at : at + 2].isascii():
            mixed[number] = replace(asked, stop=text[at : at + 2])
            left -= 1
    assert not left, "too few texts have letters to stop at"
    return mixed


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("oracle") / "tiny")


@pytest.fixture(scope="module")
def mesh(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Two workers of the oracle's model, and two of a model that embeds."""
    folder = tmp_path_factory.mktemp("mesh")
    encoder = save_encoder(folder / "toy", tiny_encoder())
    save_modules(encoder, pooling={"pooling_mode": "mean"}, normalise=True)
    models = ("--model", f"{oracle.folder}=tiny", "--model", f"{encoder}=toy")
    options = ("--engine", "transformers", "--workers", "2", "--threads", "1")
    running = start(folder / ".headrace", *options, *models)
    yield running
    stop(running)


@pytest.mark.timeout(300)
async def test_40_mixed_requests_at_once_say_what_transformers_says_of_each_alone(
    oracle: Oracle, mesh: RunningMesh
) -> None:
    mixed = stopped(oracle, mixture())
    expected = [oracle.answer(asked) for asked in mixed]
    assert {answer.finish for answer in expected} == {"length", "stop"}
    async with (
        openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=5) as by_openai,
        anthropic.AsyncAnthropic(base_url=mesh.url, api_key="none", max_retries=5) as by_anthropic,
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=120) as http,
        AsyncClient(mesh.url) as native,
    ):
        clients = Clients("tiny", by_openai, by_anthropic, http, native)

        async def embed(number: int) -> int:
            texts = [f"stone {number} {at}" for at in range(50)]
            return len((await by_openai.embeddings.create(model="toy", input=texts)).data)

        load = [asyncio.create_task(embed(number)) for number in range(6)]
        answers = await asyncio.gather(*map(clients.send, mixed))
        assert await asyncio.gather(*load) == [50] * 6
    for asked, answer, alone in zip(mixed, answers, expected, strict=True):
        assert answer == alone, asked
        if answer.token_ids is not None:
            assert answer.token_ids == alone.token_ids, asked
