"""Envoy's timeouts: for requests that do not arrive, not for those that wait in the mesh."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.supervisor.servers.local_replies import Timeouts
from helpers.eventually import eventually
from helpers.raw_http import RawAnswer, connected, request
from helpers.running_edge import RunningEdge, counted, running_edge, until
from helpers.standin_gateway import Seen, standin_gateway

SILENCE_S, REQUEST_S = 0.9, 3.0
TIMEOUTS = Timeouts(headers_s=0.5, body_idle_s=SILENCE_S, request_s=REQUEST_S)
COMPLETIONS = "/v1/completions"
BODY = b'{"do": "echo", "text": "the mill by the water"}'
REASONS: dict[str, Callable[[Any], str]] = {
    COMPLETIONS: lambda body: body["error"]["code"],
    "/v2/models/m:generate": lambda body: body["details"][0]["reason"].lower(),
    "/v2/rerank": lambda body: "request_timeout" if body.keys() == {"message"} else "",
    "/nothing": lambda body: body["error"]["code"],
}


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[Seen, int]]:
    async with standin_gateway() as serving:
        yield serving


@pytest.fixture
async def edge(tmp_path: Path, gateway: tuple[Seen, int]) -> AsyncIterator[RunningEdge]:
    async with running_edge(tmp_path, timeouts=TIMEOUTS) as running:
        running.edge.set_gateways([("127.0.0.1", gateway[1])])
        await until(f"{running.url}/v1/models")
        yield running


@pytest.fixture
async def http(edge: RunningEdge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
        yield client


async def half_sent(edge: RunningEdge, path: str) -> RawAnswer:
    async with connected(edge.url) as connection:
        await connection.send(request("POST", path, body=BODY)[:-10])
        return await connection.answer()


async def test_a_body_that_stalls_times_out_and_is_counted(
    edge: RunningEdge, gateway: tuple[Seen, int]
) -> None:
    answers = await asyncio.gather(*(half_sent(edge, path) for path in list(REASONS) * 25))
    assert {answer.status for answer in answers} == {408}
    for path, answer in zip(list(REASONS) * 25, answers, strict=True):
        body = answer.json()
        assert REASONS[path](body) == "request_timeout", path
        assert f"every {SILENCE_S:g} s" in json.dumps(body)
    assert await counted(edge, "downstream_rq_idle_timeout") == 100
    assert gateway[0].metadata == []

    await eventually(lambda: logged(edge, "stream_idle_timeout"), within_s=15)


def logged(edge: RunningEdge, details: str) -> bool:
    """Whether the access log, which Envoy writes every few seconds, has these details."""
    return f'"details":"{details}"' in (edge.logs / "access.log").read_text()


async def test_headers_that_stall_time_out(edge: RunningEdge) -> None:
    async with connected(edge.url) as connection:
        await connection.send(request("GET", "/v1/models", "x-a: a")[:-6])
        answer = await connection.answer()
    assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert await counted(edge, "downstream_rq_header_timeout") == 1
    await eventually(lambda: logged(edge, "request_header_timeout"), within_s=15)


async def test_a_slow_body_that_makes_progress_is_served(edge: RunningEdge) -> None:
    began_s = time.monotonic()
    async with connected(edge.url) as connection:
        data = request("POST", COMPLETIONS, body=BODY)
        await connection.send(data[: -len(BODY)])
        answering = asyncio.create_task(connection.answer())
        for start in range(0, len(BODY), 8):
            await asyncio.wait([answering], timeout=SILENCE_S / 4)
            assert not answering.done()
            await connection.send(BODY[start : start + 8])
        answer = await answering
    assert (answer.status, answer.body) == (200, BODY)
    assert time.monotonic() - began_s > SILENCE_S


async def test_a_body_that_never_ends_times_out_even_if_it_makes_progress(
    edge: RunningEdge,
) -> None:
    async with connected(edge.url) as connection:
        head = request("POST", COMPLETIONS, body=b"x" * 99_999)[:-99_999]
        await connection.send(head)
        answering = asyncio.create_task(connection.answer())
        while not answering.done():
            await connection.send(b" ")
            await asyncio.wait([answering], timeout=SILENCE_S / 3)
        assert (await answering).status == 408
    assert await counted(edge, "downstream_rq_timeout") == 1
    await eventually(lambda: logged(edge, "request_overall_timeout"), within_s=15)


async def test_half_a_message_of_a_grpc_web_call_times_out(edge: RunningEdge) -> None:
    path = "/headrace.v1.ModelService/ListModels"
    head = request("POST", path, body=b"\0\0\0\0\5").removesuffix(b"\0\0\0\0\5")
    async with connected(edge.url) as connection:
        await connection.send(head.replace(b"application/json", b"application/grpc-web") + b"\0")
        answer = await connection.answer()
    assert (answer.status, answer.headers["grpc-status"]) == (200, "4")
    assert "did not arrive" in answer.headers["grpc-message"]


async def test_a_request_that_waits_in_the_mesh_does_not_time_out(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    waiting = asyncio.create_task(http.post(COMPLETIONS, json={"do": "wait"}))
    await asyncio.wait([waiting], timeout=REQUEST_S + SILENCE_S / 2)
    assert not waiting.done()
    gateway[0].may_go_on.set()
    assert (await waiting).json() == {"do": "wait"}


async def test_a_silent_stream_does_not_time_out(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    async with http.stream("POST", COMPLETIONS, json={"do": "stream"}) as answer:
        lines = (line async for line in answer.aiter_lines() if line)
        assert await anext(lines) == 'data: {"n": 0}'
        rest = asyncio.create_task(anext(lines))
        await asyncio.wait([rest], timeout=REQUEST_S + SILENCE_S / 2)
        assert not rest.done()
        gateway[0].may_go_on.set()
        assert await rest == 'data: {"n": 1}'


async def test_errors_of_grpc_itself_have_the_format_of_the_path(
    http: httpx.AsyncClient,
) -> None:
    late = await http.post(COMPLETIONS, json={"do": "wait"}, headers={"grpc-timeout": "100m"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    openai = await http.post("/v1/embeddings", json={})
    assert (openai.status_code, openai.json()["error"]["code"]) == (501, "unsupported")
    assert "not implemented" in openai.json()["error"]["message"]
    native = await http.post("/v2/models/m:tokenize", json={})
    assert (native.status_code, native.json()["code"]) == (501, 12)
    assert native.json()["details"][0]["reason"] == "UNSUPPORTED"
