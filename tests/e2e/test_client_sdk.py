"""The Python client on a real mesh: streams over kills, and every call as callers use it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.client import AsyncClient, Client
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.running_mesh import RunningMesh, start, stop
from helpers.tiny_encoders import save_encoder, save_modules, tiny_encoder

PAGE = Path(__file__).parents[2] / "docs" / "python_client.md"
URL = "http://127.0.0.1:8080"

MODEL, TOKENS = "scripted", 150
OPTIONS: Any = {"model": MODEL, "seed": 5, "max_tokens": TOKENS, "ignore_eos": True}
RESPONSE: Any = {"model": MODEL, "max_output_tokens": TOKENS, "seed": 5, "ignore_eos": True}


@pytest.fixture(params=[2, 1], ids=["two gateways", "one gateway"])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FreshMesh]:
    counts = ("--workers", "2", "--gateways", str(request.param))
    async with fresh_mesh(tmp_path, *counts, "--scripted-step-ms", "30") as running:
        yield running


async def chat(client: AsyncClient) -> Any:
    """Ids and texts of two choices, piece by piece, and what the stream comes to."""
    stream = client.chat_stream("Hello", n=2, temperature=1.0, **OPTIONS)
    pieces = [piece async for piece in stream]
    ids = [[t for p in pieces if p.index == n for t in p.token_ids] for n in (0, 1)]
    return ids, [(c.text, c.token_ids, c.finish_reason) for c in stream.answer.choices]


async def answer(client: AsyncClient) -> Any:
    whole = await client.generate("Go on", temperature=1.0, **OPTIONS)
    return whole.text, whole.choices[0].token_ids, whole.finish_reason, whole.usage


async def events(client: AsyncClient) -> Any:
    stream = client.responses.stream("Hello", temperature=1.0, **RESPONSE)
    return [(each.sequence_number, each.type, each.text) async for each in stream]


def blocking(url: str) -> Any:
    with Client(url) as client, client.generate_stream("Once", temperature=1.0, **OPTIONS) as read:
        return [token for piece in read for token in piece.token_ids], read.answer.text


async def all_of(client: AsyncClient) -> list[Any]:
    in_a_thread = asyncio.to_thread(blocking, client.url)
    return list(await asyncio.gather(chat(client), answer(client), events(client), in_a_thread))


async def run(client: AsyncClient, requests: int) -> bool:
    return sum([worker.running for worker in await client.workers()]) >= requests


@pytest.mark.timeout(240)
async def test_streams_go_on_by_themselves_over_killed_gateways_and_a_killed_envoy(
    mesh: FreshMesh,
) -> None:
    async with AsyncClient(mesh.url) as client:
        undisturbed = await all_of(client)
        assert [len(ids) for ids in undisturbed[0][0]] == [TOKENS] * 2
        gateways = [name for name in mesh.processes if name.startswith("gateway")]
        for victims in (gateways, ["envoy"]):
            reading = asyncio.create_task(all_of(client))
            await eventually(lambda: run(client, 4), within_s=30)
            before = [mesh.strike(name) for name in victims]
            assert not reading.done(), "nothing was disturbed"
            for each in before:
                await mesh.back(each)
            assert await reading == undisturbed


@pytest.fixture
def two_models(tmp_path: Path) -> Iterator[RunningMesh]:
    """The default model, and one that embeds."""
    encoder = save_encoder(tmp_path / "encoder", tiny_encoder())
    save_modules(encoder, pooling={"pooling_mode": "mean"}, normalise=True)
    options = ("--model", "valley", "--model", f"{encoder}=minilm")
    running = start(tmp_path / "mesh", *options)
    yield running
    stop(running)


@pytest.mark.timeout(300)
def test_the_examples_of_the_page_run_as_they_are(
    two_models: RunningMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 10
    with Client(two_models.url) as client:
        names: dict[str, Any] = {}
        for number, block in enumerate(blocks):
            names["client"] = client
            exec(compile(block.replace(URL, two_models.url), f"example {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "get_weather {'town'" in printed
    assert "row-2 200" in printed
    assert "By the river." in printed or "Cats sleep." in printed
    assert "b'some bytes' ['notes.txt'" in printed
    assert "The model `unknown` does not exist" in printed
