"""The end of a background request is waited for, and comes as a signed webhook, in a whole mesh."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from headrace.client import AsyncClient
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.http_server import HttpServer, answer, http_server

STEP_MS, TOKENS = 20, 100
TAKES_S = TOKENS * STEP_MS / 1000


@pytest.fixture
async def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FreshMesh]:
    monkeypatch.setenv("HEADRACE_CONTROL_WEBHOOK_NETWORKS", '["127.0.0.0/8"]')
    options = ("--gateways", "2", "--scripted-step-ms", str(STEP_MS), "--auth", "keys")
    async with fresh_mesh(tmp_path, *options) as running:
        yield running


def generation(request_id: str) -> dict[str, object]:
    sampling = {"max_tokens": TOKENS, "ignore_eos": True}
    return {"prompt": "Once", "parameters": sampling, "detached": True, "request_id": request_id}


async def command(mesh: FreshMesh, *arguments: str) -> str:
    ran = await headrace(*arguments, folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    return ran.out


@pytest.mark.timeout(240)
async def test_a_background_request_ends_a_long_poll_and_sends_a_webhook(mesh: FreshMesh) -> None:
    async with http_server(answer(200)) as server:
        url = f"http://127.0.0.1:{server.port}/hooks"
        made = json.loads(
            await command(mesh, "webhook", "create", url, "--event", "response.completed", "--json")
        )
        key = mesh.state_dir.cli_key.read_text().strip()
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=mesh.url, headers=headers, trust_env=False, timeout=60
        ) as http:
            await polled_to_the_end(http)
            await held_by_a_gateway_that_dies(mesh, http)
            await refused(http)
        async with AsyncClient(mesh.url, api_key=key) as client:
            started = await client.generate_in_background(
                "Once", model="scripted", max_tokens=TOKENS, ignore_eos=True
            )
            result = await started.result(timeout_s=60)
            assert result.usage.output_tokens == TOKENS
            waited = await command(mesh, "request", "wait", started.request_id, "--api-key", key)
            assert waited.strip()
        await received(server, made["secret"], {"poll-1", "dies-1", started.request_id})


async def polled_to_the_end(http: httpx.AsyncClient) -> None:
    """The answer comes with the end, not before and not much later, from either gateway."""
    begun = await http.post("/v2/models/scripted:generate", json=generation("poll-1"))
    assert begun.status_code == 202, begun.text
    early = await http.get("/v2/requests/poll-1", params={"wait": "0.1s"})
    assert early.json()["state"] in ("REQUEST_STATE_WAITING", "REQUEST_STATE_RUNNING")
    started_s = time.monotonic()
    polls = await asyncio.gather(
        *(http.get("/v2/requests/poll-1", params={"wait": "30s"}) for _ in range(4))
    )
    assert time.monotonic() - started_s < TAKES_S + 5
    for each in polls:
        assert each.json()["state"] == "REQUEST_STATE_ENDED", each.text
        assert each.json()["outcome"]["usage"]["output_tokens"] == TOKENS


async def held_by_a_gateway_that_dies(mesh: FreshMesh, http: httpx.AsyncClient) -> None:
    begun = await http.post("/v2/models/scripted:generate", json=generation("dies-1"))
    assert begun.status_code == 202, begun.text

    async def poll() -> httpx.Response:
        while True:
            found = await http.get("/v2/requests/dies-1", params={"wait": "30s"})
            # 503: this gateway died, or nobody knows yet where the request is.
            if found.status_code == 200 and found.json()["state"] == "REQUEST_STATE_ENDED":
                return found
            assert found.status_code in (200, 503), found.text

    polls = [asyncio.create_task(poll()) for _ in range(4)]
    struck = mesh.strike("gateway-0")
    for each in await asyncio.gather(*polls):
        assert each.json()["outcome"]["usage"]["output_tokens"] == TOKENS
    await mesh.back(struck)


async def refused(http: httpx.AsyncClient) -> None:
    for wait in ("61s", "-1s", "soon"):
        found = await http.get("/v2/requests/poll-1", params={"wait": wait})
        assert found.status_code == 400, (wait, found.text)
    unknown = await http.get("/v2/requests/never-sent", params={"wait": "30s"})
    assert unknown.status_code == 404


async def received(server: HttpServer, secret: str, requests: set[str]) -> None:
    """Each request's end was sent, and OpenAI's client takes it."""
    client = openai.OpenAI(api_key="none", webhook_secret=secret)

    def ids() -> set[str]:
        events = [client.webhooks.unwrap(each.body, each.headers) for each in server.asked]
        assert {event.type for event in events} <= {"response.completed"}
        return {json.loads(each.body)["data"]["id"] for each in server.asked}

    await eventually(lambda: ids() == requests, within_s=30)
