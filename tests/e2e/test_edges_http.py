"""A whole mesh as the world's proxies, probes and clients meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.raw_http import ask, request

WORKER = "worker-scripted-0"
COMPLETIONS = "/v1/completions"
BODY = b'{"model": "scripted", "prompt": "hi", "max_tokens": 3}'


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    async with fresh_mesh(tmp_path, "--scripted-step-ms", "10", "--gateways", "2") as running:
        yield running


async def test_a_mesh_takes_what_proxies_send_and_is_woken_by_a_request(mesh: FreshMesh) -> None:
    token = "authorization: Bearer " + "a" * 12_000
    for _ in range(20):
        assert (await ask(mesh.url, request("POST", COMPLETIONS, token, body=BODY))).status == 200
    old = request("POST", COMPLETIONS, body=BODY).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await ask(mesh.url, old)).json()["object"] == "text_completion"
    offer = ("connection: Upgrade", "upgrade: TLS/1.2")
    assert (await ask(mesh.url, request("POST", COMPLETIONS, *offer, body=BODY))).status == 200
    await without_workers(mesh)


async def without_workers(mesh: FreshMesh) -> None:
    assert (await headrace("drain", WORKER, folder=mesh.folder)).status == 0
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as http:

        async def says(state: str) -> bool:
            answer = await http.get("/health")
            assert answer.status_code == 200
            return bool(answer.json()["models"] == {"scripted": state})

        await eventually(lambda: says("no_worker"), within_s=10)
        for name in ("gateway-0", "gateway-1"):
            assert await mesh.counted(name, "headrace_gateway_healthy") == 1
        asked = asyncio.create_task(
            http.post(COMPLETIONS, content=BODY, headers={"content-type": "application/json"})
        )

        async def waits() -> bool:
            lanes = (await http.get("/v2/lanes")).json()["lanes"]
            return sum(lane["waiting"] for lane in lanes) == 1

        await eventually(waits, within_s=10)
        assert (await headrace("drain", WORKER, "--undo", folder=mesh.folder)).status == 0
        assert (await asked).status_code == 200
        await eventually(lambda: says("ready"), within_s=10)
