"""Models of any name on a whole mesh; and which are configured when it comes up without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from headrace.model_names import lane_id
from helpers.command import Ran, headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import fresh_mesh

QWEN, LLAMA = "Qwen/Qwen3-0.6B", "llama3:8b"
QWEN_WORKER = f"worker-qwen-qwen3-0-6b-{lane_id(QWEN)}-0"
LLAMA_WORKER = f"worker-llama3-8b-{lane_id(LLAMA)}-0"
WITH_QWEN = ("--model", f"scripted={QWEN},gpt-4o-mini,模型")
WITH_LLAMA = ("--model", f"scripted={LLAMA}")


class NamedMesh:
    """A mesh as its users and its operator see it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)

    async def run(self, *arguments: str) -> Ran:
        return await headrace(*arguments, folder=self.folder)

    async def listed(self) -> dict[str, bool]:
        """By every name of /v1/models, whether it is ready."""
        entries = (await self.http.get("/v1/models")).json()["data"]
        return {entry["id"]: entry["ready"] for entry in entries}

    async def native(self) -> dict[str, Any]:
        models = (await self.http.get("/v2/models")).json()["models"]
        return {model["name"]: model for model in models}

    async def complete(self, model: str, **fields: Any) -> httpx.Response:
        body = {"model": model, "prompt": "Hello", "max_tokens": 4, **fields}
        return await self.http.post("/v1/completions", json=body)


@asynccontextmanager
async def up(folder: Path, *options: str) -> AsyncIterator[NamedMesh]:
    async with fresh_mesh(folder, *options) as mesh:
        named = NamedMesh(folder, mesh.url)
        async with named.http:
            yield named


async def test_models_of_any_name_are_served_and_removed_once_the_mesh_no_longer_lists_them(
    tmp_path: Path,
) -> None:
    async with up(tmp_path, *WITH_QWEN, *WITH_LLAMA) as mesh:
        await _are_served_under_all_their_names(mesh)
        await _are_shown_with_their_lane_ids(mesh)
        await _wait_without_a_worker(mesh)
    async with up(tmp_path, *WITH_QWEN) as mesh:
        await _is_removed(mesh)


async def _are_served_under_all_their_names(mesh: NamedMesh) -> None:
    async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client:
        for name in (QWEN, "gpt-4o-mini", "模型"):
            answer = await client.completions.create(model=name, prompt="Hello", max_tokens=4)
            assert answer.model == QWEN
        assert (await client.models.retrieve(QWEN)).id == QWEN
        answer = await client.completions.create(model=LLAMA, prompt="Hello", max_tokens=4)
        assert answer.model == LLAMA
    names = {QWEN, "gpt-4o-mini", "模型", LLAMA}
    assert await mesh.listed() == dict.fromkeys(names, True)
    ran = await mesh.run("generate", "Hello", "--model", "模型", "--max-tokens", "4")
    assert (ran.status, ran.err) == (0, "")


async def _are_shown_with_their_lane_ids(mesh: NamedMesh) -> None:
    lanes = json.loads((await mesh.run("lanes", "--json")).out)["lanes"]
    shown = {(lane["model"], lane["lane_id"]) for lane in lanes}
    assert shown == {(QWEN, lane_id(QWEN)), (LLAMA, lane_id(LLAMA))}
    status = json.loads((await mesh.run("status", "--json")).out)
    assert [model["id"] for model in status["models"]] == [QWEN, LLAMA]
    assert {QWEN_WORKER, LLAMA_WORKER} <= {process["name"] for process in status["processes"]}
    models = json.loads((await mesh.run("model", "list", "--json")).out)
    assert [(m["name"], m["aliases"], m["ready"], m["lane_id"]) for m in models] == [
        (QWEN, ["gpt-4o-mini", "模型"], True, lane_id(QWEN)),
        (LLAMA, [], True, lane_id(LLAMA)),
    ]


async def _wait_without_a_worker(mesh: NamedMesh) -> None:
    """Drained, the model is configured still: listed as not ready, and its requests wait."""
    assert (await mesh.run("drain", LLAMA_WORKER)).status == 0
    await eventually(lambda: _is_ready(mesh, LLAMA, False))
    found = (await mesh.native())[LLAMA]
    assert (found["ready"], found["workers"]) == (False, 0)
    assert (await mesh.listed())[QWEN]
    waiting = asyncio.create_task(mesh.complete(LLAMA))
    assert (await mesh.run("drain", LLAMA_WORKER, "--undo")).status == 0
    assert (await waiting).status_code == httpx.codes.OK


async def _is_ready(mesh: NamedMesh, model: str, ready: bool) -> bool:
    return (await mesh.listed())[model] is ready


async def _is_removed(mesh: NamedMesh) -> None:
    refused = await mesh.complete(LLAMA)
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert refused.json()["error"]["code"] == "model_not_found"
    assert refused.elapsed.total_seconds() < 5
    assert set(await mesh.listed()) == {QWEN, "gpt-4o-mini", "模型"}
    assert set(await mesh.native()) == {QWEN}
    assert (await mesh.http.get("/v2/models/llama3%3A8b")).status_code == httpx.codes.NOT_FOUND
    unknown = await mesh.run("model", "remove", LLAMA)
    assert (unknown.status, "is configured" in unknown.err) == (2, True)
