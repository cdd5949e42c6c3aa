"""A worker whose KV cache is too small for all of its streams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest

from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat

STREAMS = 8
TOKENS = 120
ROUNDS = 20
"""A quick machine may end a stream before the last has begun; then none is parked."""
PARKED = "vllm:num_preemptions_total"


async def parked(mesh: FreshMesh) -> float:
    """How often the worker has parked a sequence."""
    port = mesh.processes["worker-valley-0"].ports["metrics"]
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(PARKED))


@pytest.mark.timeout(120)
async def test_streams_that_preempt_each_other_equal_those_that_run_alone(
    tmp_path: Path,
) -> None:
    small = ("--set", "worker.kv_store=pages", "--set", "worker.cache_tokens=560")
    options = ("--engine", "transformers", "--threads", "1", *small)
    async with fresh_mesh(tmp_path, *options) as mesh:
        url = f"{mesh.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(number: int) -> Seen:
                return await chat(
                    client,
                    "valley",
                    f"Tell me about number {number}.",
                    seed=number,
                    temperature=1.0,
                    max_tokens=TOKENS,
                    extra_body={"ignore_eos": True},
                )

            expected = [await one(number) for number in range(STREAMS)]
            for _ in range(ROUNDS):
                together = await asyncio.gather(*(one(number) for number in range(STREAMS)))
                assert [seen.text for seen in together] == [seen.text for seen in expected]
                assert all(seen.completion_tokens == TOKENS for seen in together)
                if await parked(mesh) > 0:
                    return
    pytest.fail("no sequence was parked, so nothing was shown")
