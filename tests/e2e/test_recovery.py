"""Processes are killed under load; streams pause at most."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import openai
import pytest

from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat
from helpers.strikes import Strike

STREAMS = 24
SLOTS = STREAMS // 2
"""Of each of two workers: once more streams than this have begun, both hold some."""
TOKENS = 300
"""Long, so that a fault that follows the first of them comes long before the last."""
BEGUN = 20
"""Characters."""


async def all_streams(mesh: FreshMesh, model: str, strike: Strike | None = None) -> list[Seen]:
    """Sampled, seeded streams that run to their bound, all at once; half with logprobs."""
    url = f"{mesh.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        def look(number: int, seen: Seen) -> None:
            if strike is not None and len(seen.text) >= BEGUN:
                strike.begun(number)

        async def one(number: int) -> Seen:
            return await chat(
                client,
                model,
                f"Tell me about number {number}.",
                seed=number,
                temperature=1.0,
                max_tokens=TOKENS,
                extra_body={"ignore_eos": True},
                on_chunk=partial(look, number),
                **({"logprobs": True, "top_logprobs": 2} if number % 2 else {}),
            )

        return await asyncio.gather(*(one(i) for i in range(STREAMS)))


async def disturbed(mesh: FreshMesh, model: str, victim: str) -> list[Seen]:
    """The same streams, with a process killed in their midst; a worker, with some of them."""
    async with Strike(mesh, victim, after=SLOTS) as strike:
        return await all_streams(mesh, model, strike)


def require_equal(seen: list[Seen], expected: list[Seen]) -> None:
    assert [s.text for s in seen] == [s.text for s in expected]
    assert all(s.finish_reasons == ["length"] for s in seen)
    assert all(s.completion_tokens == TOKENS for s in seen)
    assert sum(s.after_finish for s in seen) == 0
    assert [len(s.logprobs) for s in seen] == [
        TOKENS if number % 2 else 0 for number in range(STREAMS)
    ]
    for one, other in zip(seen, expected, strict=True):
        assert logprob_values(one) == pytest.approx(logprob_values(other), abs=1e-4)


def logprob_values(seen: Seen) -> list[float]:
    """The log probability of every token, and of the likeliest in its place."""
    return [
        logprob
        for entry in seen.logprobs
        for logprob in (entry.logprob, entry.top_logprobs[0].logprob)
    ]


MESH = ("--workers", "2", "--set", f"worker.max_slots={SLOTS}")


@pytest.mark.timeout(180)
async def test_streams_equal_those_of_an_undisturbed_run_whatever_is_killed(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path, *MESH, "--schedulers", "2", "--scripted-step-ms", "10") as mesh:
        expected = await all_streams(mesh, "scripted")
        for victim in ("worker-scripted-0", "scheduler-0", "scheduler-1", "worker-scripted-1"):
            require_equal(await disturbed(mesh, "scripted", victim), expected)


@pytest.mark.timeout(180)
async def test_a_real_models_sampled_text_survives_a_killed_worker(tmp_path: Path) -> None:
    options = (*MESH, "--engine", "transformers", "--threads", "1")
    async with fresh_mesh(tmp_path, *options) as mesh:
        expected = await all_streams(mesh, "valley")
        require_equal(await disturbed(mesh, "valley", "worker-valley-0"), expected)
