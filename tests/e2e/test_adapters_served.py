"""Adapters of the default model: requested by name, added and removed while it serves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from headrace.client import AsyncClient
from headrace.supervisor.state.state_dir import StateDir
from headrace_worker.serving.models import DEFAULT_MODEL
from helpers.eventually import eventually
from helpers.random_adapters import merged, write_adapter
from helpers.running_mesh import RunningMesh, start, stop
from helpers.tiny_models import generated

PROMPT = "Who bakes the bread in the valley?"
TOKENS = 160


def model() -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype="float32")
    return loaded


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two, side by side; none of them is served yet."""
    made = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("pirate", "poet")):
        write_adapter(made / name, model(), number=number, r=8)
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, adapters: Path) -> Path:
    """The folder that the mesh looks at; "pirate" is there from the start."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(adapters / "pirate", folder / "pirate")
    return folder


@pytest.fixture(scope="module")
def adapted_mesh(tmp_path_factory: pytest.TempPathFactory, served: Path) -> Iterator[RunningMesh]:
    running = start(
        tmp_path_factory.mktemp("mesh"),
        *("--workers", "2", "--threads", "1"),
        *("--set", f"worker.adapters_dir={served}", "--set", "worker.adapters_scan_s=0.1"),
    )
    yield running
    stop(running)


async def tokens(
    client: AsyncClient,
    name: str,
    seen: list[int] | None = None,
    on_news: Callable[[], None] = lambda: None,
) -> list[int]:
    """What is streamed, in `seen` as it comes."""
    ids: list[int] = [] if seen is None else seen
    async for event in client.stream(
        PROMPT, model=name, temperature=0, max_tokens=TOKENS, ignore_eos=True
    ):
        assert event.delta.first_index == len(ids) or not event.delta.token_ids
        ids += event.delta.token_ids
        on_news()
    return ids


async def prompt_ids(mesh: RunningMesh) -> tuple[int, ...]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False) as http:
        answer = await http.post("/v2/models/valley:pirate:tokenize", json={"text": PROMPT})
    return tuple(answer.json()["token_ids"])


async def test_model_and_adapter_answer_side_by_side_each_with_its_own_weights(
    adapted_mesh: RunningMesh, adapters: Path
) -> None:
    async with AsyncClient(adapted_mesh.url) as client:
        plain, pirate = await asyncio.gather(
            tokens(client, "valley"), tokens(client, "valley:pirate")
        )
    prompt = await prompt_ids(adapted_mesh)
    assert plain[:40] == generated(model(), prompt, 40)
    assert pirate[:40] == generated(merged(model(), adapters / "pirate"), prompt, 40)


@pytest.mark.timeout(120)
async def test_streams_with_an_adapter_survive_a_killed_worker(adapted_mesh: RunningMesh) -> None:
    async with AsyncClient(adapted_mesh.url) as client:
        undisturbed = await tokens(client, "valley:pirate")
        processes = StateDir(adapted_mesh.folder).read_record().processes
        victims = [each.pid for each in processes if each.name == "worker-valley-1"]
        seen: list[list[int]] = [[] for _ in range(6)]
        longest: list[int] = []

        def strike() -> None:
            """Once all have begun; or, where one is far ahead, before it is at its end."""
            if victims and (all(seen) or max(map(len, seen)) > TOKENS // 4):
                longest.append(max(map(len, seen)))
                pid = victims.pop()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)

        streams = await asyncio.gather(
            *(tokens(client, "valley:pirate", ids, strike) for ids in seen)
        )
        assert longest[0] < TOKENS
        assert streams == [undisturbed] * len(seen)


@pytest.mark.timeout(120)
async def test_adapters_are_added_and_removed_while_the_mesh_serves(
    adapted_mesh: RunningMesh, adapters: Path, served: Path
) -> None:
    url = f"{adapted_mesh.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def listed() -> set[str]:
            return {each.id async for each in client.models.list()}

        shutil.copytree(adapters / "poet", served / ".poet")
        (served / ".poet").rename(served / "poet")

        async def has_come() -> bool:
            return "valley:poet" in await listed()

        async def has_gone() -> bool:
            return "valley:poet" not in await listed()

        await eventually(has_come, within_s=40)
        answer = await client.completions.create(
            model="valley:poet", prompt=PROMPT, max_tokens=4, temperature=0
        )
        assert answer.model == "valley:poet"
        shutil.rmtree(served / "poet")
        await eventually(has_gone, within_s=40)
        assert "valley:pirate" in await listed()
