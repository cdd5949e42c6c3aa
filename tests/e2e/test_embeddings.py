"""A real encoder behind the whole mesh: every vector arrives once, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.tiny_encoders import (
    save_encoder,
    save_modules,
    states_alone,
    text_input,
    tiny_encoder,
)

CALLS, INPUTS = 3, 600
TEXTS = [("the river mill " * (i % 9 + 1)) + "stone " * (i % 4) for i in range(INPUTS)]


@cache
def expected(text: str) -> torch.Tensor:
    mean = states_alone(tiny_encoder(), text_input(0, text)).mean(dim=0)
    unit: torch.Tensor = mean / mean.norm()
    return unit


def require_all(vectors: list[list[float]]) -> None:
    """Every vector is there, and in its place."""
    plain = {text: expected(text) for text in set(TEXTS)}
    requested = torch.stack([plain[text] for text in TEXTS])
    torch.testing.assert_close(torch.tensor(vectors), requested, atol=2e-5, rtol=1e-4)


async def vectors_of(client: openai.AsyncOpenAI) -> list[list[float]]:
    answer = await client.embeddings.create(model="toy", input=TEXTS)
    assert [each.index for each in answer.data] == list(range(INPUTS))
    return [each.embedding for each in answer.data]


async def kill_while_it_works(mesh: FreshMesh, http: httpx.AsyncClient) -> None:
    """SIGKILL to a worker all of whose slots are taken."""
    victim = mesh.processes["worker-toy-0"]
    assert victim.pid is not None

    async def works() -> bool:
        workers = (await http.get("/v2/workers")).json()["workers"]
        return any(w["name"] == victim.name and w["free_slots"] < 64 for w in workers)

    await eventually(works, within_s=20)
    os.kill(victim.pid, signal.SIGKILL)


@pytest.mark.timeout(150)
async def test_every_vector_arrives_once_when_a_worker_is_killed(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "toy", tiny_encoder())
    save_modules(folder, pooling={"pooling_mode": "mean"}, normalise=True)
    options = ("--engine", "transformers", "--model", f"{folder}=toy", "--workers", "2")
    slowly = ("--threads", "1", "--set", "worker.encoder_pass_tokens=64")
    async with (
        fresh_mesh(tmp_path / "mesh", *options, *slowly) as mesh,
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http,
        openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="x", max_retries=0) as client,
    ):
        calls = [asyncio.create_task(vectors_of(client)) for _ in range(CALLS)]
        await kill_while_it_works(mesh, http)
        for call in calls:
            require_all(await call)
        assert await lost_attempts(mesh) >= 1, "nothing ran on what was killed"
        await api_answers(client, http)


async def lost_attempts(mesh: FreshMesh) -> float:
    """As the gateway counts them."""
    port = mesh.processes["gateway-0"].ports["metrics"]
    async with httpx.AsyncClient(trust_env=False) as http:
        lines = (await http.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()
    name = "headrace_gateway_lost_total{"
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def api_answers(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    one = await client.embeddings.create(model="toy", input=TEXTS[5], dimensions=8)
    short = expected(TEXTS[5])[:8]
    torch.testing.assert_close(
        torch.tensor(one.data[0].embedding), short / short.norm(), atol=2e-5, rtol=1e-4
    )
    body: Any = {"model": "toy", "query": "the mill", "documents": ["the stone", "the mill"]}
    ranked = (await http.post("/v1/rerank", json=body)).json()
    assert ranked["results"][0]["index"] == 1
    with pytest.raises(openai.BadRequestError, match="model toy makes vectors of texts"):
        await client.completions.create(model="toy", prompt="Hello")
