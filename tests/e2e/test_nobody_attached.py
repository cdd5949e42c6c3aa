"""Detached requests in a mesh whose gateways are killed while nobody reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import Answer, AsyncClient
from headrace.client.background import AsyncBackgroundRequest
from headrace.errors import RequestCancelled
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

TOKENS = 200
REQUESTS = 8
MODEL = "scripted"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    options = ("--workers", "2", "--gateways", "2", "--scripted-step-ms", "20")
    async with fresh_mesh(tmp_path, *options) as running:
        yield running


@pytest.fixture
async def client(mesh: FreshMesh) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(mesh.url) as client:
        yield client


@pytest.fixture
async def http(mesh: FreshMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http:
        yield http


def ask(number: int) -> dict[str, Any]:
    sampling = {"max_tokens": TOKENS, "temperature": 1.0, "ignore_eos": True}
    return {"prompt": f"Number {number}", "model": MODEL, "seed": number} | sampling


async def begin_all(client: AsyncClient) -> list[AsyncBackgroundRequest]:
    return [await client.generate_in_background(**ask(number)) for number in range(REQUESTS)]


async def results(begun: list[AsyncBackgroundRequest]) -> list[Answer]:
    return await asyncio.gather(*(each.result(timeout_s=90) for each in begun))


def said(answer: Answer) -> tuple[str, list[int], int, int]:
    (choice,) = answer.choices
    usage = answer.usage
    return choice.text, list(choice.token_ids), usage.prompt_tokens, usage.output_tokens


async def runs(client: AsyncClient, requests: int) -> bool:
    return sum([worker.running for worker in await client.workers()]) >= requests


@pytest.mark.timeout(240)
async def test_gateways_are_killed_and_every_result_is_that_of_an_undisturbed_run(
    mesh: FreshMesh, client: AsyncClient
) -> None:
    undisturbed = [
        said(answer)
        for answer in await asyncio.gather(
            *(client.generate(**ask(number)) for number in range(REQUESTS))
        )
    ]
    assert len(undisturbed[0][1]) == TOKENS
    for victims in (["gateway-0"], ["gateway-0", "gateway-1"]):
        begun = await begin_all(client)
        await eventually(lambda: runs(client, REQUESTS), within_s=30)
        before = [mesh.strike(victim) for victim in victims]
        for each in before:
            await mesh.back(each)
        assert [said(answer) for answer in await results(begun)] == undisturbed
    taken = [await mesh.counted(f"gateway-{i}", TAKEN_OVER) for i in (0, 1)]
    assert sum(taken) >= REQUESTS, "nobody was disturbed"


TAKEN_OVER = "headrace_gateway_taken_over_total"


@pytest.mark.timeout(180)
async def test_a_gateway_that_is_drained_hands_over_what_nobody_reads(
    mesh: FreshMesh, client: AsyncClient
) -> None:
    begun = await begin_all(client)
    await eventually(lambda: runs(client, REQUESTS), within_s=30)
    ran = await headrace("drain", "gateway-0", folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    answers = await results(begun)
    assert [answer.usage.output_tokens for answer in answers] == [TOKENS] * REQUESTS


@pytest.mark.timeout(120)
async def test_readers_leave_and_come_and_only_a_cancellation_ends_it(
    client: AsyncClient, http: httpx.AsyncClient
) -> None:
    begun = await client.generate_in_background(**ask(1))
    whole = said(await client.generate(**ask(1)))
    ids: list[int] = []
    async for event in begun.stream():
        ids += event.delta.token_ids
        if len(ids) > 20:
            break
    rest = client.background_request(begun.request_id).stream(after=str(len(ids)))
    ids += [token async for event in rest for token in event.delta.token_ids]
    assert (ids, said(await begun.result())) == (whole[1], whole)
    again = [token async for event in begun.stream() for token in event.delta.token_ids]
    assert again == ids, "also after its end"
    stopped = await client.generate_in_background(**ask(2))
    async for event in stopped.stream():
        if event.delta.token_ids:
            break
    await stopped.cancel()
    with pytest.raises(RequestCancelled):
        await stopped.result(timeout_s=30)


@pytest.mark.timeout(120)
async def test_rest_callers_get_a_name_at_once_and_begin_nothing_twice(
    http: httpx.AsyncClient, client: AsyncClient
) -> None:
    path, body = f"/v2/models/{MODEL}:generate", {"prompt": "a", "request_id": "named"}
    answers = [await http.post(path, json=body | {"detached": True}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, again = (answer.json() for answer in answers)
    assert first["create_time"] == again["create_time"]
    assert first["detached"] is True
    other = await http.post(path, json=body | {"prompt": "b", "detached": True})
    assert (other.status_code, other.json()["details"][0]["reason"]) == (409, "REQUEST_EXISTS")
    await client.background_request("named").result(timeout_s=60)
    ended = (await http.get(answers[0].headers["location"])).json()
    assert ended["state"] == "REQUEST_STATE_ENDED"
    assert ended["end_time"] < ended["expire_time"]
    late = await http.post(path, json=body | {"detached": True})
    assert (late.status_code, late.json()["outcome"]) == (202, ended["outcome"])
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "background": True}
    background = await http.post("/v1/chat/completions", json=chat | {"max_tokens": 5})
    assert (background.status_code, background.json()["choices"]) == (202, [])
    answer = await client.background_request(background.json()["request_id"]).result(timeout_s=60)
    assert answer.usage.output_tokens == 5


@pytest.mark.timeout(120)
async def test_the_command_prints_a_name_and_leaves(mesh: FreshMesh, client: AsyncClient) -> None:
    ran = await headrace("generate", "Go on", "--detach", "--max-tokens", "7", folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    answer = await client.background_request(ran.out.strip()).result(timeout_s=60)
    assert answer.usage.output_tokens == 7
