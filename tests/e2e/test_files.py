"""OpenAI's files in a whole mesh: large ones pass through every process, and are held in none."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import psutil
import pytest

from helpers.command import headrace
from helpers.running_mesh import RunningMesh

MIB = 1 << 20
LARGEST = 200 * MIB
GROWTH = 32 * MIB
"""Most that a process may grow while a file of twice that and more passes through it."""


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{mesh.url}/v1", max_retries=0) as made:
        yield made
        async for file in made.files.list():
            await made.files.delete(file.id)


def processes(mesh: RunningMesh) -> dict[str, psutil.Process]:
    """Control and Envoy, by name."""
    record = json.loads(Path(mesh.folder, "mesh.json").read_text())
    found = {each["role"]: psutil.Process(each["pid"]) for each in record["processes"]}
    return {name: found[name] for name in ("control", "envoy")}


async def watched(seen: dict[str, psutil.Process], peaks: dict[str, int]) -> None:
    while True:
        for name, process in seen.items():
            peaks[name] = max(peaks.get(name, 0), process.memory_info().rss)
        await asyncio.sleep(0.02)  # a sample of memory, until cancelled


async def test_a_large_file_goes_in_and_out_and_is_held_in_no_process(
    mesh: RunningMesh, client: openai.AsyncOpenAI
) -> None:
    await client.files.create(file=b"warm", purpose="user_data")
    data = os.urandom(MIB) * 66
    peaks: dict[str, int] = {}
    seen = processes(mesh)
    before = {name: process.memory_info().rss for name, process in seen.items()}
    watching = asyncio.create_task(watched(seen, peaks))
    file = await client.files.create(file=("large", data), purpose="user_data")
    content = await client.files.content(file.id)
    watching.cancel()
    await asyncio.wait({watching})
    assert content.content == data
    assert {name: peaks[name] - rss < GROWTH for name, rss in before.items()} == dict.fromkeys(
        seen, True
    ), (before, peaks)


async def test_a_file_of_one_byte_too_many_is_refused_with_words(
    mesh: RunningMesh, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client.files.create(file=("large", bytes(LARGEST + 1)), purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
    assert refused.value.type == "invalid_request_error"
    assert "200 MiB (209715200 bytes)" in refused.value.message
    assert (await client.files.list()).data == []


async def test_a_command_uploads_what_a_client_reads(
    mesh: RunningMesh, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"custom_id": "1"}\n')
    state = ("--state-dir", str(mesh.folder))
    ran = await headrace("file", "upload", str(rows), *state, folder=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    file_id = ran.out.strip()
    assert (await client.files.retrieve(file_id)).purpose == "batch"
    assert (await client.files.content(file_id)).text == rows.read_text()
