"""`headrace drain NAME` under load loses no request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from headrace.client import AsyncClient
from helpers.command import Ran, headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat

STREAMS = 16
TOKENS = 200
WORKER = "worker-scripted-0"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    both = ("--workers", "2", "--schedulers", "2", "--gateways", "2")
    async with fresh_mesh(tmp_path, "--scripted-step-ms", "20", *both) as running:
        yield running


async def all_streams(mesh: FreshMesh) -> list[Seen]:
    url = f"{mesh.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(number: int) -> Seen:
            return await chat(
                client,
                "scripted",
                f"Tell me about number {number}.",
                seed=number,
                temperature=1.0,
                max_tokens=TOKENS,
                extra_body={"ignore_eos": True},
            )

        return await asyncio.gather(*(one(i) for i in range(STREAMS)))


async def drained_under_load(mesh: FreshMesh, *arguments: str) -> tuple[Ran, list[Seen]]:
    async with AsyncClient(mesh.url) as client:

        async def both_run() -> bool:
            return all(worker.running for worker in await client.workers())

        streams = asyncio.create_task(all_streams(mesh))
        await eventually(both_run, within_s=20)
    ran = await headrace("drain", *arguments, folder=mesh.folder)
    return ran, await streams


async def test_a_worker_drained_under_load_hands_over_stays_stopped_and_is_undone(
    mesh: FreshMesh,
) -> None:
    expected = await all_streams(mesh)
    ran, seen = await drained_under_load(mesh, WORKER, "--grace", "0.2")
    assert ran.status == 0, ran.err
    assert f"{WORKER} has stopped after" in ran.out
    assert [s.text for s in seen] == [s.text for s in expected]
    assert all(s.completion_tokens == TOKENS and s.finish_reasons == ["length"] for s in seen)

    process = mesh.processes[WORKER]
    assert (process.drained, process.pid) == (True, None)
    status = await headrace("status", folder=mesh.folder)
    assert status.status == 0
    assert [line.split()[-2] for line in status.out.splitlines() if WORKER in line] == ["drained"]
    again = await headrace("drain", WORKER, folder=mesh.folder)
    assert "is drained already" in again.out

    back = await headrace("drain", WORKER, "--undo", folder=mesh.folder)
    assert f"{WORKER} serves again" in back.out
    assert not mesh.processes[WORKER].drained
    assert [s.text for s in await all_streams(mesh)] == [s.text for s in expected]


@pytest.mark.parametrize("name", ["scheduler-0", "gateway-1"])
async def test_drained_schedulers_and_gateways_are_restarted(mesh: FreshMesh, name: str) -> None:
    before = mesh.processes[name].pid
    ran, seen = await drained_under_load(mesh, name)
    assert ran.status == 0, ran.err
    assert f"{name} has stopped and is back" in ran.out
    assert mesh.processes[name].pid not in (None, before)
    assert all(s.completion_tokens == TOKENS for s in seen)


async def test_an_impossible_drain_is_rejected_with_the_possible_ones(mesh: FreshMesh) -> None:
    for name in ("missing", "nats"):
        ran = await headrace("drain", name, folder=mesh.folder)
        assert ran.status == 2
        assert "worker-scripted-1, gateway-0" in ran.err
    ran = await headrace("drain", WORKER, "--undo", folder=mesh.folder)
    assert ran.status == 2
    assert "nothing to undo" in ran.err
