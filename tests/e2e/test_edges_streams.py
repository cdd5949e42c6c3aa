"""Streams as clients of all kinds read them, and requests that are sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import openai
import pytest

from headrace.v1 import common_pb2, generation_pb2, generation_pb2_grpc
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop

GATEWAYS = ("gateway-0", "gateway-1")
STREAM, WHOLE = "/v2/models/scripted:streamGenerate", "/v2/models/scripted:generate"
COMPLETIONS = "/v1/completions"
TOKENS = 12
SLOW_TOKENS = 60


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    """Tokens come slower than comments."""
    folder = tmp_path_factory.mktemp("edges")
    settings = (
        "gateway.stream_head_after_s=0.02",
        "gateway.stream_keepalive_s=0.02",
        "gateway.tenant_header=x-tenant",
    )
    options = ["--engine", "scripted", "--gateways", "2", "--scripted-step-ms", "60"]
    for setting in settings:
        options += ["--set", setting]
    running = start(folder / ".headrace", *options)
    yield FreshMesh(folder, running.url)
    stop(running)


@pytest.fixture
async def http(mesh: FreshMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as client:
        yield client


def native(request_id: str, **changes: Any) -> dict[str, Any]:
    parameters = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 1.0}
    parameters |= changes.pop("parameters", {})
    common = {"prompt": "Go on", "n": 2, "detached": True, "request_id": request_id}
    return common | {"parameters": parameters} | changes


def completion(**changes: Any) -> dict[str, Any]:
    common = {"model": "scripted", "prompt": "Go on", "max_tokens": TOKENS, "stream": True}
    return common | {"temperature": 1.0, "ignore_eos": True} | changes


def events_of(text: str) -> list[Any]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def native_result(text: str) -> tuple[Any, ...]:
    """The result of a native stream: seed, token ids of each choice, usage, error."""
    ids: dict[int, list[int]] = {}
    started: dict[str, Any] = {}
    for event in events_of(text):
        started = event.get("started", started)
        if delta := event.get("delta"):
            ids.setdefault(delta["choice"], []).extend(delta["token_ids"])
    finish = events_of(text)[-1]["finish"]
    return started.get("seed"), ids, finish.get("usage"), finish.get("error")


async def executions(mesh: FreshMesh) -> float:
    """Requests that gateways have brought to their end."""

    async def nothing_is_open() -> bool:
        names = ("headrace_gateway_open_requests", "headrace_gateway_unsettled_requests")
        return sum([await mesh.counted(g, name) for g in GATEWAYS for name in names]) == 0

    await eventually(nothing_is_open, within_s=30)
    counts = [await mesh.counted(name, "headrace_gateway_requests_total") for name in GATEWAYS]
    return sum(counts)


async def test_a_repeated_background_request_is_answered_and_not_run(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    before = await executions(mesh)
    first = await http.post(STREAM, json=native("again"))
    assert {len(ids) for ids in native_result(first.text)[1].values()} == {TOKENS}
    # Both gateways are reached: Envoy sends calls to them in turn.
    for _ in range(3):
        again = await http.post(STREAM, json=native("again"))
        assert (again.status_code, native_result(again.text)) == (200, native_result(first.text))
    whole = await http.post(WHOLE, json=native("again"))
    assert (whole.status_code, whole.json()["state"]) == (202, "REQUEST_STATE_ENDED")
    waited = await http.post(WHOLE, json=native("again", detached=False))
    assert waited.json()["seed"] == native_result(first.text)[0]
    assert [c["token_ids"] for c in waited.json()["choices"]] == list(
        native_result(first.text)[1].values()
    )
    assert await typed_again(mesh.url, "again") == native_result(first.text)[1]
    assert await executions(mesh) == before + 1


async def typed_again(url: str, request_id: str) -> dict[int, list[int]]:
    request = generation_pb2.GenerateRequest(
        model="scripted",
        prompt="Go on",
        n=2,
        detached=True,
        request_id=request_id,
        parameters=common_pb2.SamplingParameters(
            max_tokens=TOKENS, ignore_eos=True, temperature=1.0
        ),
    )
    ids: dict[int, list[int]] = {}
    async with grpc.aio.insecure_channel(url.removeprefix("http://")) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        async for event in stub.StreamGenerate(request):
            if event.HasField("delta"):
                ids.setdefault(event.delta.choice, []).extend(event.delta.token_ids)
    return ids


OTHERS: list[dict[str, Any]] = [
    {"prompt": "Go away"},
    {"n": 1},
    {"seed": "5"},
    {"parameters": {"max_tokens": 3}},
    {"prompt": "Go away", "detached": False},
]


async def test_a_request_id_belongs_to_one_request(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    first = await http.post(STREAM, json=native("mine"), headers={"x-tenant": "a"})
    before = await executions(mesh)
    for path in (STREAM, WHOLE):
        for changes in OTHERS:
            answer = await http.post(
                path, json=native("mine", **changes), headers={"x-tenant": "a"}
            )
            assert answer.status_code == 409, (path, changes, answer.text)
            assert answer.json()["details"][0]["reason"] == "REQUEST_EXISTS"
    again = await http.post(STREAM, json=native("mine"), headers={"x-tenant": "a"})
    assert native_result(again.text) == native_result(first.text)
    assert await executions(mesh) == before


async def test_a_repeated_cancelled_request_stays_cancelled(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    body = native("stopped", parameters={"max_tokens": SLOW_TOKENS})
    assert (await http.post(WHOLE, json=body)).status_code == 202
    cancelled = await http.post("/v2/requests/stopped:cancel")
    assert cancelled.status_code == 200
    before = await executions(mesh)
    again = await http.post(STREAM, json=body)
    assert native_result(again.text)[3]["details"][0]["reason"] == "CANCELLED"
    whole = await http.post(WHOLE, json=body)
    assert whole.json()["outcome"]["error"]["code"] == 1
    assert await executions(mesh) == before


async def test_a_repeated_failed_request_stays_failed(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    body = native("late", timeout="0.5s", parameters={"max_tokens": SLOW_TOKENS})
    first = await http.post(STREAM, json=body)
    assert native_result(first.text)[3]["details"][0]["reason"] == "DEADLINE_EXCEEDED"
    before = await executions(mesh)
    again = await http.post(STREAM, json=body)
    assert native_result(again.text) == native_result(first.text)
    assert await executions(mesh) == before


async def test_another_tenant_cannot_resume_a_stream(http: httpx.AsyncClient) -> None:
    body = completion(seed=3, background=True)
    first = await http.post(COMPLETIONS, json=body, headers={"x-tenant": "a"})
    headers = {"last-event-id": f"{first.headers['x-request-id']}:", "x-tenant": "b"}
    refused = await http.post(COMPLETIONS, json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "request_not_found")
    again = await http.post(COMPLETIONS, json=body, headers=headers | {"x-tenant": "a"})
    assert data_alone(again.text) == data_alone(first.text)


async def test_a_request_repeated_while_it_runs_is_streamed_to_all(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    before = await executions(mesh)
    body = native("both", parameters={"max_tokens": SLOW_TOKENS})
    answers = await asyncio.gather(*(http.post(STREAM, json=body) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    results = [native_result(answer.text) for answer in answers]
    assert results == 4 * [results[0]]
    assert await executions(mesh) == before + 1
    later = native("all-at-once")
    begun = await asyncio.gather(*(http.post(WHOLE, json=later) for _ in range(8)))
    assert {answer.status_code for answer in begun} == {202}, [each.text for each in begun]
    assert len({answer.json()["request_id"] for answer in begun}) == 1
    await eventually(lambda: has_ended(http, "all-at-once"), within_s=30)
    assert await executions(mesh) == before + 2


@pytest.mark.parametrize("stream", [True, False])
async def test_background_requests_under_a_key_run_once(
    mesh: FreshMesh, http: httpx.AsyncClient, stream: bool
) -> None:
    before = await executions(mesh)
    key = {"idempotency-key": f"background {stream}"}
    body = completion(background=True, stream=stream)
    first, again = [await http.post(COMPLETIONS, json=body, headers=key) for _ in range(2)]
    assert first.headers["x-request-id"] == again.headers["x-request-id"]
    if stream:
        assert data_alone(first.text) == data_alone(again.text)
    other = await http.post(COMPLETIONS, json=body | {"max_tokens": 3}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "request_exists")
    await eventually(lambda: has_ended(http, first.headers["x-request-id"]), within_s=30)
    assert await executions(mesh) == before + 1


async def has_ended(http: httpx.AsyncClient, request_id: str) -> bool:
    found = await http.get(f"/v2/requests/{request_id}")
    return bool(found.json()["state"] == "REQUEST_STATE_ENDED")


def data_alone(text: str) -> str:
    texts = [c["text"] for chunk in events_of(text) for c in chunk["choices"]]
    return "".join(texts)


async def test_streams_are_never_silent_for_long(http: httpx.AsyncClient) -> None:
    for path, body in ((COMPLETIONS, completion()), (STREAM, native("alive"))):
        text = (await http.post(path, json=body)).text
        pieces = [line for line in text.splitlines() if line]
        kinds = "".join("c" if line == ": keep-alive" else "d" for line in pieces)
        assert "dc" in kinds, "between tokens"
        assert "cd" in kinds
    assert "id: " not in (await http.post(COMPLETIONS, json=completion())).text


async def test_openais_client_reads_streams_with_and_without_resume(mesh: FreshMesh) -> None:
    async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client:
        for headers in ({}, {"x-headrace-resume": "true"}):
            stream = await client.completions.create(
                model="scripted",
                prompt="Go on",
                max_tokens=TOKENS,
                stream=True,
                extra_body={"ignore_eos": True},
                extra_headers=headers,
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.timeout(120)
async def test_a_client_without_event_ids_resumes_by_its_token_count(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    body = completion(
        max_tokens=SLOW_TOKENS,
        seed=7,
        background=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    undisturbed = data_alone((await http.post(COMPLETIONS, json=body)).text)
    had, counted = "", 0
    async with http.stream("POST", COMPLETIONS, json=body) as answer:
        request_id = answer.headers["x-request-id"]
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            chunk = json.loads(line[6:])
            had += chunk["choices"][0]["text"]
            counted = chunk["usage"]["completion_tokens"]
            if counted >= SLOW_TOKENS // 2:
                break
    headers = {"last-event-id": f"{request_id}:{counted}"}
    rest = await http.post(COMPLETIONS, json=body, headers=headers)
    assert had + data_alone(rest.text) == undisturbed
    native_rest = await http.get(f"/v2/requests/{request_id}:stream?after={counted}")
    deltas = [event["delta"]["text"] for event in events_of(native_rest.text) if "delta" in event]
    assert had + "".join(deltas) == undisturbed
    again = await http.post(COMPLETIONS, json=body, headers={"last-event-id": f"{request_id}:"})
    assert data_alone(again.text) == undisturbed


@pytest.mark.timeout(180)
async def test_a_background_stream_is_repeated_after_its_gateways_were_killed(
    mesh: FreshMesh, http: httpx.AsyncClient
) -> None:
    body = native("survives", parameters={"max_tokens": 3 * SLOW_TOKENS})
    async with http.stream("POST", STREAM, json=body) as answer:
        text = ""
        async for piece in answer.aiter_text():
            text += piece
            if text.count('"delta"') > SLOW_TOKENS:
                break
    await asyncio.gather(*(mesh.kill(name) for name in GATEWAYS))

    async def answered() -> httpx.Response:
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await http.post(STREAM, json=body)
                except httpx.TransportError:
                    continue
                if answer.status_code != 503:
                    return answer
                await asyncio.sleep(0.1)

    again = await answered()
    seed, ids, usage, error = native_result(again.text)
    assert (error, usage["output_tokens"]) == (None, 2 * 3 * SLOW_TOKENS)
    begun = events_of(text.rpartition("\n\n")[0])
    assert begun[0]["started"]["seed"] == seed
    had: dict[int, list[int]] = {}
    for event in begun:
        if delta := event.get("delta"):
            had.setdefault(delta["choice"], []).extend(delta["token_ids"])
    for choice, before in had.items():
        assert ids[choice][: len(before)] == before
    assert await executions(mesh) == 1, "of the gateways that live now"
