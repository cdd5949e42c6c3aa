"""Processes are killed under load; clients notice a pause at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from headrace.mesh.home import ProcessRecord
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat

STREAMS = 24
SLOTS = STREAMS // 2
"""Of each of two workers: once more streams than this have begun, both hold some."""
TOKENS = 300
"""Long, so that a fault that follows the first of them comes long before the last."""
BEGUN = 20
"""Characters."""
LOST = "headrace_gateway_lost_total"


class Strike:
    """Kills the victim, at once and once, when its clients have seen that both workers are busy."""

    def __init__(self, mesh: FreshMesh, victim: str) -> None:
        self._mesh, self._victim = mesh, victim
        self._begun: set[int] = set()
        self.struck: ProcessRecord | None = None

    def on_chunk(self, stream: int) -> Callable[[Seen], None]:
        def look(seen: Seen) -> None:
            if len(seen.text) >= BEGUN:
                self._begun.add(stream)
            if self.struck is None and len(self._begun) > SLOTS:
                self.struck = self._mesh.strike(self._victim)

        return look


async def all_streams(mesh: FreshMesh, model: str, strike: Strike | None = None) -> list[Seen]:
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
                on_chunk=strike.on_chunk(number) if strike else lambda _: None,
                **({"logprobs": True, "top_logprobs": 2} if number % 2 else {}),
            )

        return await asyncio.gather(*(one(i) for i in range(STREAMS)))


async def disturbed(mesh: FreshMesh, model: str, victim: str) -> list[Seen]:
    """The same streams, with a process killed in their midst; a worker, with some of them."""
    lost_before = await mesh.counted("gateway-0", LOST)
    strike = Strike(mesh, victim)
    seen = await all_streams(mesh, model, strike)
    assert strike.struck is not None
    if victim.startswith("worker"):
        assert await mesh.counted("gateway-0", LOST) > lost_before
    await mesh.back(strike.struck)
    return seen


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


MESH = ("--workers", "2", "--set", f"worker.max_slots={SLOTS}")


@pytest.mark.timeout(180)
async def test_streams_are_those_of_an_undisturbed_run_whatever_is_killed(tmp_path: Path) -> None:
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
