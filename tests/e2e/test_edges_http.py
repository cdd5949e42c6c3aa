"""A whole mesh with requests as proxies, probes and old clients send them."""

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


async def test_requests_as_proxies_send_them_are_served_and_wait_for_a_worker(
    mesh: FreshMesh,
) -> None:
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

        async def has_state(state: str) -> bool:
            answer = await http.get("/health")
            assert answer.status_code == 200
            return bool(answer.json()["models"] == {"scripted": state})

        await eventually(lambda: has_state("no_worker"), within_s=10)
        for name in ("gateway-0", "gateway-1"):
            assert await mesh.counted(name, "headrace_gateway_healthy") == 1
        waiting = asyncio.create_task(
            http.post(COMPLETIONS, content=BODY, headers={"content-type": "application/json"})
        )

        async def waits() -> bool:
            lanes = (await http.get("/v2/lanes")).json()["lanes"]
            return bool(sum(lane["waiting"] for lane in lanes) == 1)

        await eventually(waits, within_s=10)
        assert (await headrace("drain", WORKER, "--undo", folder=mesh.folder)).status == 0
        assert (await waiting).status_code == 200
        await eventually(lambda: has_state("ready"), within_s=10)
