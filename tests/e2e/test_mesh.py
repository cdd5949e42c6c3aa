"""Start and stop of a mesh, and its recovery when processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from headrace.cli.mesh.welcome import SAMPLE_QUESTION
from headrace.client import AsyncClient
from headrace.supervisor.state.state_dir import StateDir
from helpers.command import command, headrace, processes_with
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh


async def answers(mesh: FreshMesh) -> bool:
    """Whether a token comes through the public port."""
    body = {"model": "scripted", "prompt": "Hello", "max_tokens": 1}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        try:
            answer = await http.post(f"{mesh.url}/v1/completions", json=body)
        except httpx.HTTPError:
            return False
    return answer.status_code == httpx.codes.OK


@pytest.mark.timeout(150)
async def test_any_killed_process_is_restarted_and_the_mesh_recovers(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path) as mesh:
        for killed, name in enumerate(mesh.processes, start=1):
            await mesh.kill(name)
            await eventually(lambda: answers(mesh), within_s=20)
            restarts = {each.name: each.restarts for each in mesh.processes.values()}
            assert restarts[name] == 1
            assert sum(restarts.values()) == killed
        assert mesh.state_dir.read_record().url == mesh.url


async def test_a_stream_survives_a_killed_worker(tmp_path: Path) -> None:
    async with (
        fresh_mesh(tmp_path, "--workers", "2", "--scripted-step-ms", "20") as mesh,
        AsyncClient(mesh.url) as client,
    ):

        async def tokens() -> list[int]:
            ids: list[int] = []
            async for event in client.stream(
                "Hello", model="scripted", seed=7, max_tokens=100, ignore_eos=True
            ):
                assert event.delta.first_index == len(ids) or not event.delta.token_ids
                ids += event.delta.token_ids
                if len(ids) == 20 and kill:
                    busy = await busy_worker(client)
                    pid = mesh.processes[busy].pid
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    kill.clear()
            return ids

        kill: list[bool] = []
        undisturbed = await tokens()
        kill.append(True)
        assert await tokens() == undisturbed
        assert not kill


async def busy_worker(client: AsyncClient) -> str:
    """The worker that runs something."""
    while True:
        for worker in await client.workers():
            if worker.running:
                return worker.name
        await asyncio.sleep(0.01)


async def test_two_meshes_on_one_machine_are_independent(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second with 'quotes' and é"
    async with fresh_mesh(first) as one, fresh_mesh(second) as other:
        assert one.url != other.url
        await headrace("down", folder=first)
        assert await answers(other)
        assert not await answers(one)


async def test_down_ends_every_process(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path):
        assert processes_with(str(tmp_path))
        ran = await headrace("down", folder=tmp_path)
        assert ran.status == 0
        assert processes_with(str(tmp_path)) == []


async def test_down_lets_an_open_stream_finish(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path, "--scripted-step-ms", "20") as mesh:
        async with AsyncClient(mesh.url) as client:
            events = client.stream("Hello", model="scripted", max_tokens=100, ignore_eos=True)
            await anext(events)
            down = asyncio.create_task(headrace("down", folder=tmp_path))
            ids = [token async for event in events for token in event.delta.token_ids]
        assert len(ids) == 100
        assert (await down).status == 0


async def test_killing_the_supervisor_ends_every_process(tmp_path: Path) -> None:
    async with fresh_mesh(tmp_path) as mesh:
        os.kill(mesh.state_dir.read_record().supervisor_pid, signal.SIGKILL)
        await eventually(lambda: processes_with(str(tmp_path)) == [])
        await eventually(lambda: not mesh.state_dir.is_locked)


async def test_ctrl_c_drains_and_ends_every_process(tmp_path: Path) -> None:
    up = await asyncio.create_subprocess_exec(
        *command("up", "--engine", "scripted", "--port", "0"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert up.stdout is not None
    shown = ""
    async with asyncio.timeout(40):
        while "Ctrl-C ends it" not in shown:
            shown += (await up.stdout.readline()).decode()
        up.send_signal(signal.SIGINT)
        rest = (await up.stdout.read()).decode()
        assert await up.wait() == 0
    assert "mesh: ready in" in shown
    assert f"> {SAMPLE_QUESTION}" in shown
    assert "from openai import OpenAI" in rest or "from openai import OpenAI" in shown
    assert "was killed" not in rest
    assert processes_with(str(tmp_path)) == []


async def test_ctrl_c_during_the_start_ends_every_process(tmp_path: Path) -> None:
    up = await asyncio.create_subprocess_exec(
        *command("up", "--engine", "scripted", "--port", "0"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert up.stdout is not None
    async with asyncio.timeout(40):
        while b"envoy: starts" not in await up.stdout.readline():
            pass
        up.send_signal(signal.SIGINT)
        await up.stdout.read()
        assert await up.wait() == 0
    assert processes_with(str(tmp_path)) == []


async def test_a_detached_mesh_that_cannot_start_prints_the_reason(tmp_path: Path) -> None:
    # A folder may have modules that are named like Python's own; ours must not import them.
    (tmp_path / "random.py").write_text("raise SystemExit('another random')")
    up = ("up", "--engine", "scripted", "--port", "0", "--detach", "--set", "worker.nothing=1")
    ran = await headrace(*up, folder=tmp_path)
    assert ran.status == 1
    assert "worker-scripted-0 ended with status 2" in ran.err
    assert "--nothing=1" in ran.err
    assert processes_with(str(tmp_path)) == []
    assert not StateDir(tmp_path / ".headrace").is_locked
