"""One Idempotency-Key, one execution: sent at once, sent again, sent after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop

PATH = "/v1/completions"
TOKENS = 100
AT_ONCE = 8
"""Envoy gives them to both gateways in turns."""
GATEWAYS = ("gateway-0", "gateway-1")
BACK_WITHIN_S = 60.0


def body(**changes: Any) -> dict[str, Any]:
    common = {"model": "scripted", "prompt": "Go on", "max_tokens": TOKENS}
    return common | {"temperature": 1.0, "ignore_eos": True, "n": 2} | changes


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    folder = tmp_path_factory.mktemp("twice")
    options = ("--engine", "scripted", "--gateways", "2", "--scripted-step-ms", "10")
    running = start(folder / ".headrace", *options)
    yield FreshMesh(folder, running.url)
    stop(running)


@pytest.fixture
async def http(mesh: FreshMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as client:
        yield client


async def executions(mesh: FreshMesh) -> float:
    """Requests that gateways have brought to their end, canaries not among them."""

    async def nothing_is_open() -> bool:
        names = ("headrace_gateway_open_requests", "headrace_gateway_unsettled_requests")
        return sum([await mesh.counted(g, name) for g in GATEWAYS for name in names]) == 0

    # An answer's last byte goes out a moment before its end is written down.
    await eventually(nothing_is_open, within_s=30)
    counts = [await mesh.counted(name, "headrace_gateway_requests_total") for name in GATEWAYS]
    return sum(counts)


async def post(
    http: httpx.AsyncClient, key: str, path: str = PATH, **changes: Any
) -> httpx.Response:
    sent = body(**changes) if path == PATH else changes
    return await http.post(path, json=sent, headers={"idempotency-key": key})


async def test_requests_with_one_key_run_once(mesh: FreshMesh, http: httpx.AsyncClient) -> None:
    before = await executions(mesh)
    answers = await asyncio.gather(*(post(http, "at once") for _ in range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    first = answers[0].json()
    assert first["usage"]["completion_tokens"] == 2 * TOKENS
    again = await post(http, "at once")
    assert (again.text, again.headers["x-request-id"]) == (answers[0].text, first["id"][5:])
    streamed = await post(http, "at once", stream=True)
    assert f'"id":"{first["id"]}"' in streamed.text.replace(" ", "")
    assert await executions(mesh) == before + 1
    other = await post(http, "another")
    assert other.json()["id"] != first["id"]
    assert await executions(mesh) == before + 2


async def test_a_key_belongs_to_one_request(http: httpx.AsyncClient) -> None:
    assert (await post(http, "mine", max_tokens=3)).status_code == 200
    others: list[dict[str, Any]] = [{"max_tokens": 4}, {"max_tokens": 3, "seed": 5}]
    for changes in others:
        refused = await post(http, "mine", **changes)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "Idempotency-Key")
        assert "other parameters" in error["message"]
    assert (await post(http, "x" * 256)).status_code == 400
    native = "/v2/models/scripted:generate"
    named = await post(http, "mine too", native, prompt="a", request_id="mine")
    assert named.status_code == 400
    parameters = {"max_tokens": 3}
    fields = {"prompt": "a", "parameters": parameters}
    one, two = [await post(http, "native", native, **fields) for _ in range(2)]
    assert (one.status_code, one.text) == (200, two.text)


@pytest.mark.timeout(120)
async def test_a_retry_gets_the_whole_answer_after_its_gateway_was_killed(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    async def retry_until_answered() -> dict[str, Any]:
        async with asyncio.timeout(BACK_WITHIN_S):
            while True:
                try:
                    answer = await post(http, "retried", max_tokens=3 * TOKENS)
                except httpx.TransportError:
                    continue
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.05)

    retrying = asyncio.create_task(retry_until_answered())
    async with AsyncClient(mesh.url) as client:
        await eventually(lambda: runs(client), within_s=30)
    await asyncio.gather(*(mesh.kill(name) for name in GATEWAYS))
    answer = await retrying
    assert answer["usage"]["completion_tokens"] == 2 * 3 * TOKENS
    assert await executions(mesh) == 1, "the present gateways have ended it once"
    assert await retry_until_answered() == answer
    assert await executions(mesh) == 1


async def runs(client: AsyncClient) -> bool:
    return any(worker.running for worker in await client.workers())
