"""Processes are killed under load; clients notice a pause at most."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from headrace.client import AsyncClient
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat

STREAMS = 24
TOKENS = 150


async def all_streams(mesh: FreshMesh, model: str) -> list[Seen]:
    """Sampled, seeded streams that run to their bound, all at once; half tell logprobs."""
    url = f"{mesh.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(number: int) -> Seen:
            return await chat(
                client,
                model,
                f"Tell me about number {number}.",
                seed=number,
                temperature=1.0,
                max_tokens=TOKENS,
                extra_body={"ignore_eos": True},
                **({"logprobs": True, "top_logprobs": 2} if number % 2 else {}),
            )

        return await asyncio.gather(*(one(i) for i in range(STREAMS)))


async def disturbed(mesh: FreshMesh, model: str, victim: str) -> list[Seen]:
    """The same streams, with a process killed when most of them are under way."""

    # Why not the command: on a busy machine it takes as long to start as the streams take to end.
    async with AsyncClient(mesh.url) as client:

        async def most_run() -> bool:
            return sum([worker.running for worker in await client.workers()]) > STREAMS / 2

        streams = asyncio.create_task(all_streams(mesh, model))
        await eventually(most_run, within_s=20)
    await mesh.kill(victim)
    return await streams


def require_equal(seen: list[Seen], expected: list[Seen]) -> None:
    assert [s.text for s in seen] == [s.text for s in expected]
    assert all(s.finish_reasons == ["length"] for s in seen)
    assert all(s.completion_tokens == TOKENS for s in seen)
    assert sum(s.after_finish for s in seen) == 0
    assert [len(s.told) for s in seen] == [TOKENS if number % 2 else 0 for number in range(STREAMS)]
    for one, other in zip(seen, expected, strict=True):
        assert told(one) == pytest.approx(told(other), abs=1e-4)


def told(seen: Seen) -> list[float]:
    """How likely every token was, and what was likeliest in its place."""
    return [
        logprob for entry in seen.told for logprob in (entry.logprob, entry.top_logprobs[0].logprob)
    ]


@pytest.mark.timeout(120)
async def test_streams_are_those_of_an_undisturbed_run_whatever_is_killed(tmp_path: Path) -> None:
    options = ("--workers", "2", "--schedulers", "2", "--scripted-step-ms", "20")
    async with fresh_mesh(tmp_path, *options) as mesh:
        expected = await all_streams(mesh, "scripted")
        for victim in ("worker-scripted-0", "scheduler-0", "scheduler-1", "worker-scripted-1"):
            require_equal(await disturbed(mesh, "scripted", victim), expected)


@pytest.mark.timeout(120)
async def test_a_real_models_sampled_text_survives_a_killed_worker(tmp_path: Path) -> None:
    options = ("--engine", "transformers", "--workers", "2", "--threads", "1")
    async with fresh_mesh(tmp_path, *options) as mesh:
        expected = await all_streams(mesh, "valley")
        require_equal(await disturbed(mesh, "valley", "worker-valley-0"), expected)
