"""A request that is cancelled, by closing the connection or by its id, holds nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh

LONG = {"model": "scripted", "prompt": "a b c", "max_tokens": 4000, "ignore_eos": True}
FREED_WITHIN_S = 1.0


@pytest.fixture
async def http(mesh: RunningMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as client:
        yield client


async def busy_slots(http: httpx.AsyncClient) -> int:
    workers = (await http.get("/v2/workers")).json()["workers"]
    return sum(w["total_slots"] - w["free_slots"] for w in workers)


async def read_all(mesh: RunningMesh, path: str, body: Mapping[str, object]) -> list[str]:
    """On a connection of its own, so that cancelling this closes it."""
    async with (
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as own,
        own.stream("POST", path, json=body) as answer,
    ):
        return [line async for line in answer.aiter_lines() if line]


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
async def test_a_client_that_closes_its_connection_frees_its_slot(
    mesh: RunningMesh, http: httpx.AsyncClient, stream: bool
) -> None:
    async def is_busy(slots: int) -> bool:
        return await busy_slots(http) == slots

    reading = asyncio.create_task(read_all(mesh, "/v1/completions", LONG | {"stream": stream}))
    await eventually(lambda: is_busy(1))
    reading.cancel()
    await eventually(lambda: is_busy(0), within_s=FREED_WITHIN_S)


async def test_a_request_cancelled_by_id_ends_its_stream_and_may_be_cancelled_again(
    mesh: RunningMesh, http: httpx.AsyncClient
) -> None:
    async def state(expected: str) -> bool:
        answer = await http.get("/v2/requests/by-name")
        return answer.status_code == 200 and answer.json()["state"] == expected

    parameters = {"max_tokens": 4000, "ignore_eos": True}
    body = {"prompt": "a b c", "request_id": "by-name", "parameters": parameters}
    path = "/v2/models/scripted:streamGenerate"
    reading = asyncio.create_task(read_all(mesh, path, body))
    await eventually(lambda: state("REQUEST_STATE_RUNNING"))
    for _ in range(2):
        answer = await http.post("/v2/requests/by-name:cancel")
        assert answer.status_code == 200
    assert '"CANCELLED"' in (await reading)[-1]
    # The stream ends a moment before the state of the request changes.
    await eventually(lambda: state("REQUEST_STATE_ENDED"))


async def test_a_request_past_its_deadline_fails_and_frees_its_slot(
    http: httpx.AsyncClient,
) -> None:
    async def is_free() -> bool:
        return await busy_slots(http) == 0

    parameters = {"max_tokens": 4000, "ignore_eos": True}
    body = {"prompt": "a", "timeout": "0.4s", "parameters": parameters}
    answer = await http.post("/v2/models/scripted:generate", json=body)
    assert answer.status_code == 504
    assert answer.json()["details"][0]["reason"] == "DEADLINE_EXCEEDED"
    await eventually(is_free, within_s=FREED_WITHIN_S)


async def test_a_cancellation_at_the_last_token_has_one_consistent_outcome(
    mesh: RunningMesh, http: httpx.AsyncClient
) -> None:
    most = 30

    async def raced(number: int) -> None:
        """Cancelled as soon as all of its tokens but `number` have been read."""
        name, ids, finishes = f"raced-{number}", list[int](), list[dict[str, Any]]()
        parameters = {"max_tokens": most, "ignore_eos": True}
        body = {"prompt": "a b c", "request_id": name, "parameters": parameters}
        cancelling: asyncio.Task[httpx.Response] | None = None
        path = "/v2/models/scripted:streamGenerate"
        async with http.stream("POST", path, json=body) as answer:
            async for line in answer.aiter_lines():
                event = json.loads(line[6:]) if line.startswith("data: ") else {}
                ids += event.get("delta", {}).get("token_ids", [])
                finishes += [event["finish"]] if "finish" in event else []
                if len(ids) >= most - number and cancelling is None:
                    cancelling = asyncio.create_task(http.post(f"/v2/requests/{name}:cancel"))
        (finish,) = finishes
        assert cancelling is not None
        assert (await cancelling).status_code == 200
        assert finish["usage"]["output_tokens"] == len(ids)
        kept = (await http.get(f"/v2/requests/{name}")).json()["outcome"]
        assert kept["usage"] == finish["usage"]
        error = finish.get("error", {}).get("details", [{}])[0].get("reason", "")
        assert error == "CANCELLED" or (error, len(ids)) == ("", most)
        assert ("error" in kept) is bool(error)

    await asyncio.gather(*(raced(number) for number in range(8)))
