"""Queue positions, on streams and in `headrace lanes`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient
from helpers.command import command, headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

ONE_SLOT = ("--scripted-step-ms", "20", "--set", "worker.max_slots=1")
LONG = {"model": "scripted", "prompt": "a b c", "max_tokens": 4000, "ignore_eos": True}
STREAM = LONG | {"stream": True}
NATIVE = {"prompt": "a b c", "parameters": {"max_tokens": 4000, "ignore_eos": True}}
NATIVE_PATH = "/v2/models/scripted:streamGenerate"
SOON_S = 20.0


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    """A mesh whose only slot is taken."""
    async with (
        fresh_mesh(tmp_path, *ONE_SLOT) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=60) as http,
        http.stream("POST", "/v1/completions", json=STREAM) as answer,
    ):
        lines = answer.aiter_lines()  # kept: it would close the stream at its own end
        await anext(lines)
        yield running


async def first_line(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], beginning: str, arrived: asyncio.Event
) -> str:
    """The first line of a stream that begins so; it is read on until cancelled."""
    headers = {"x-headrace-resume": "true"}
    async with http.stream("POST", path, json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith(beginning):
                arrived.set()
                await asyncio.Event().wait()
    raise AssertionError(f"the stream ended without {beginning}")


async def test_streams_get_their_queue_position_and_lanes_count_them(mesh: FreshMesh) -> None:
    # One after the other, so that their order in the lane is known.
    waits = (
        ("/v1/completions", STREAM, ": queue position=0"),
        (NATIVE_PATH, NATIVE, ": queue position=1"),
        (NATIVE_PATH, NATIVE, 'data: {"queued": {"position": 2'),
    )
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as http:
        waiting = []
        for path, body, beginning in waits:
            arrived = asyncio.Event()
            waiting.append(
                asyncio.create_task(first_line(http, path, dict(body), beginning, arrived))
            )
            async with asyncio.timeout(SOON_S):
                await arrived.wait()
        ran = await headrace("lanes", "--json", folder=mesh.folder)
        lanes = {lane["priority"]: lane for lane in json.loads(ran.out)["lanes"]}
        standard = lanes["standard"]
        assert (standard["waiting"], standard["running"], standard["workers"]) == (3, 1, 1)
        assert standard["oldest_wait_s"] > 0
        assert standard["estimated_wait_s"] is None, "nothing has ended, so nothing is known"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_watched_lanes_print_a_line_for_each_change(mesh: FreshMesh) -> None:
    watching = await asyncio.create_subprocess_exec(
        *command("lanes", "--watch"), cwd=mesh.folder, stdout=asyncio.subprocess.PIPE
    )
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(2 * SOON_S):
            first = [(await watching.stdout.readline()).decode() for _ in range(3)]
            assert [line.split()[1] for line in first] == [
                f"scripted/{priority}:" for priority in ("interactive", "standard", "bulk")
            ]
            async with AsyncClient(mesh.url) as client:
                stream = client.stream("wait", model="scripted", max_tokens=1)
                await anext(stream)
                line = (await watching.stdout.readline()).decode()
        assert "scripted/standard: 1 of 512 waiting, 1 running, 1 workers" in line
    finally:
        watching.kill()
        await watching.wait()


async def test_lanes_without_a_worker_are_marked(mesh: FreshMesh) -> None:
    ran = await headrace("drain", "worker-scripted-0", "--grace", "0", folder=mesh.folder)
    assert ran.status == 0, ran.err
    assert "no other worker serves scripted: its requests wait" in ran.out

    async def none_serves() -> bool:
        ran = await headrace("lanes", folder=mesh.folder)
        return all("none" in line.split() for line in ran.out.splitlines()[1:])

    await eventually(none_serves, within_s=SOON_S)
