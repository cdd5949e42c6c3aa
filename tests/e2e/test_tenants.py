"""Equal ids of two tenants are two separate requests; a tenant is that of the call's key."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.command import command
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop

WHOLE = "/v2/models/scripted:generate"
TENANTS = ("default", "a", "b", "team.one")
ENDED = "REQUEST_STATE_ENDED"
Of = Callable[[str], dict[str, str]]
SEVERAL_TIMES = 6
"""Envoy sends them to both gateways in turns."""


@dataclass(frozen=True)
class Tenants:
    """A mesh that requires keys, and one of each tenant."""

    mesh: FreshMesh
    keys: dict[str, str]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    options = ("--engine", "scripted", "--gateways", "2", "--scripted-step-ms", "20")
    running = start(folder / ".headrace", *options, "--auth", "keys")
    try:
        mesh = FreshMesh(folder, running.url)
        yield Tenants(mesh, {tenant: make_key(folder, tenant) for tenant in TENANTS})
    finally:
        stop(running)


def make_key(folder: Path, tenant: str) -> str:
    line = command("key", "create", "--tenant", tenant, "--json")
    made = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return str(json.loads(made.stdout)["key"])


@pytest.fixture
async def http(tenants: Tenants) -> AsyncIterator[httpx.AsyncClient]:
    url = tenants.mesh.url
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def of(tenants: Tenants) -> Of:
    """Headers of a call of a tenant."""
    return lambda tenant: {"authorization": f"Bearer {tenants.keys[tenant]}"}


def body(tenant: str, tokens: int, **changes: Any) -> dict[str, Any]:
    parameters = {"max_tokens": tokens, "ignore_eos": True, "temperature": 1.0}
    return {"prompt": f"Of {tenant}", "parameters": parameters} | changes


async def background(
    http: httpx.AsyncClient, of: Of, tenant: str, name: str, tokens: int = 30
) -> httpx.Response:
    sent = body(tenant, tokens, detached=True, request_id=name)
    return await http.post(WHOLE, json=sent, headers=of(tenant))


async def streamed(http: httpx.AsyncClient, of: Of, tenant: str, name: str) -> httpx.Response:
    """The stream of the request from its beginning; it ends with the request."""
    return await http.get(f"/v2/requests/{name}:stream", headers=of(tenant))


async def test_equal_ids_of_several_tenants_are_separate_requests(
    http: httpx.AsyncClient, of: Of
) -> None:
    begun = await asyncio.gather(*(background(http, of, each, "mine") for each in TENANTS))
    assert [each.status_code for each in begun] == [202] * len(TENANTS), begun[-1].text
    assert {each.json()["request_id"] for each in begun} == {"mine"}
    texts = set()
    for tenant in TENANTS:
        read = await streamed(http, of, tenant, "mine")
        assert read.status_code == 200, read.text
        assert '"request_id":"mine"' in read.text.replace(" ", "")
        assert f"{tenant}/" not in read.text, "callers see ids and not keys"
        texts.add(read.text)
        for _ in range(SEVERAL_TIMES):
            found = await http.get("/v2/requests/mine", headers=of(tenant))
            assert (found.status_code, found.json()["request_id"]) == (200, "mine"), found.text
    assert len(texts) == len(TENANTS)


async def test_a_request_of_another_tenant_is_not_found_and_keeps_running(
    http: httpx.AsyncClient, of: Of
) -> None:
    assert (await background(http, of, "a", "long", tokens=150)).status_code == 202
    for other in ("default", "b"):
        for _ in range(SEVERAL_TIMES):
            answers = [
                await http.get("/v2/requests/long", headers=of(other)),
                await http.post("/v2/requests/long:cancel", json={}, headers=of(other)),
                await streamed(http, of, other, "long"),
            ]
            assert [each.status_code for each in answers] == [404] * 3, answers[0].text
            assert "not found" in answers[0].text
    found = await http.get("/v2/requests/long", headers=of("a"))
    assert found.json()["state"] != ENDED, "nothing of the others has cancelled it"
    cancelled = await http.post("/v2/requests/long:cancel", json={}, headers=of("a"))
    assert cancelled.status_code == 200


async def test_an_idempotency_key_is_separate_for_each_tenant(
    http: httpx.AsyncClient, of: Of
) -> None:
    sent = {"model": "scripted", "prompt": "Go on", "max_tokens": 8, "temperature": 1.0}
    ids = set()
    for tenant in TENANTS:
        headers = {"idempotency-key": "one", **of(tenant)}
        first = await http.post("/v1/completions", json=sent, headers=headers)
        again = await http.post("/v1/completions", json=sent, headers=headers)
        assert first.status_code == 200, first.text
        assert again.text == first.text
        ids.add(first.json()["id"])
    assert len(ids) == len(TENANTS)


@pytest.mark.timeout(180)
async def test_requests_survive_a_killed_gateway_for_their_own_tenants(
    tenants: Tenants, http: httpx.AsyncClient, of: Of
) -> None:
    for tenant in ("a", "b"):
        for number in range(4):
            begun = await background(http, of, tenant, f"kept-{number}", tokens=100)
            assert begun.status_code == 202, begun.text
    await tenants.mesh.kill("gateway-0")

    async def found(tenant: str, number: int) -> bool:
        answer = await http.get(f"/v2/requests/kept-{number}", headers=of(tenant))
        return answer.status_code == 200 and answer.json()["state"] == ENDED

    for tenant in ("a", "b"):
        for number in range(4):
            await eventually(lambda t=tenant, n=number: found(t, n), within_s=60)
            read = await streamed(http, of, tenant, f"kept-{number}")
            assert read.status_code == 200, read.text
    other = await http.get("/v2/requests/kept-0", headers=of("default"))
    assert other.status_code == 404
