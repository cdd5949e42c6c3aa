"""Models in one mesh, one with a chat template that does not parse and one with half a
config.json, and fields of vLLM's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace_worker
from helpers.command import headrace
from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop

SHIPPED = Path(headrace_worker.__file__).parent / "default_model"
HELLO = [{"role": "user", "content": "Who keeps the mill?"}]


def copied(folder: Path, template: str | None = None) -> Path:
    """The model that ships, with another chat template where one is given."""
    shutil.copytree(SHIPPED, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    folder = tmp_path_factory.mktemp("both")
    broken = copied(folder / "models" / "broken", "{{ bos_token }}\n{% for m in messages %}")
    sound = copied(folder / "models" / "sound")
    torn = copied(folder / "models" / "torn")
    (torn / "config.json").write_text('{"model_type": "llama",')
    models = tuple(f"--model={each}={each.name}" for each in (torn, broken, sound))
    mesh = start(folder / ".headrace", *models, "--threads", "1")
    yield FreshMesh(folder, mesh.url)
    stop(mesh)


@pytest.fixture
def http(both: FreshMesh) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=both.url, trust_env=False, timeout=60)


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> httpx.Response:
    prompt: dict[str, Any] = {"messages": HELLO} if "chat" in path else {"prompt": "The river"}
    body = {"model": "sound", "max_tokens": 24, "temperature": 0} | prompt | fields
    return await http.post(f"/v1/{path}", json=body)


async def test_a_model_with_an_invalid_chat_template_does_not_affect_others(
    both: FreshMesh, http: httpx.AsyncClient
) -> None:
    async with http:
        refused = await post(http, "chat/completions", model="broken")
        assert refused.status_code == 400
        assert "chat template cannot be read: line 2" in refused.json()["error"]["message"]
        for path in ("completions", "chat/completions"):
            assert (await post(http, path)).status_code == 200
        completed = await post(http, "completions", model="broken")
        assert (
            completed.json()["choices"][0]["text"]
            == ((await post(http, "completions")).json()["choices"][0]["text"])
        )
        listed = (await http.get("/v1/models")).json()["data"]
        assert {model["id"]: model["ready"] for model in listed} == {
            "broken": True,
            "sound": True,
            "torn": False,
        }
    processes = both.processes.items()
    assert all(process.pid is not None for name, process in processes if name != "worker-torn-0")


async def test_a_model_that_cannot_be_loaded_is_left_out_and_retried(
    both: FreshMesh, http: httpx.AsyncClient
) -> None:
    async with http:
        missing = await post(http, "completions", model="torn")
        # It is configured, and its worker is started again.
        assert missing.status_code == 503
        assert missing.json()["error"]["code"] == "no_worker"
        assert missing.headers["retry-after"]
    worker = both.processes["worker-torn-0"]
    assert worker.last_end == "ended with status 2"
    assert worker.restarts >= 1
    ran = await headrace("status", folder=both.folder)
    assert ran.status == 1
    assert "worker-torn-0: its last run ended with status 2" in ran.out


async def test_token_masks_hold_when_a_worker_is_killed(
    both: FreshMesh, http: httpx.AsyncClient
) -> None:
    async with http:
        free = (await post(http, "chat/completions")).json()["choices"][0]["message"]["content"]
        word = max(free.split(), key=len)
        banned = await post(http, "chat/completions", bad_words=[word])
        assert word not in banned.json()["choices"][0]["message"]["content"].split()
        few = list(range(40, 60))
        fields = {
            "allowed_token_ids": few,
            "min_tokens": 150,
            "max_tokens": 160,
            "temperature": 1.0,
            "seed": 7,
            "cache_salt": "mine",
            "return_token_ids": True,
        }
        whole = (await post(http, "completions", **fields)).json()["choices"][0]["token_ids"]
        assert set(whole) <= set(few)
        assert len(whole) >= 150
        assert await interrupted(both, http, fields) == whole


async def interrupted(
    mesh: FreshMesh, http: httpx.AsyncClient, fields: dict[str, Any]
) -> list[int]:
    """The token ids of a stream in whose middle its worker is killed."""
    body = {"model": "sound", "prompt": "The river", "stream": True} | fields
    got: list[int] = []
    before = None
    async with http.stream("POST", "/v1/completions", json=body) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                got += choice.get("token_ids", [])
            if len(got) > 10 and before is None:
                before = await asyncio.to_thread(mesh.strike, "worker-sound-0")
    assert before is not None
    assert len(got) < 10_000
    return got
