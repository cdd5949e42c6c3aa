"""The edge: the shipped Envoy configuration on a real Envoy, before a stand-in gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import openai
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.rpc.status import from_rpc_error
from headrace.supervisor.servers import assets
from headrace.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc
from helpers.eventually import eventually
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.standin_gateway import Seen, standin_gateway

TOO_LARGE = 17 * 1024 * 1024
CHAT = "/v1/completions"


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[Seen, int]]:
    async with standin_gateway() as serving:
        yield serving


@pytest.fixture
async def edge(tmp_path: Path, gateway: tuple[Seen, int]) -> AsyncIterator[RunningEdge]:
    async with running_edge(tmp_path) as running:
        running.edge.set_gateways([("127.0.0.1", gateway[1])])
        await until(f"{running.url}/v1/models")
        yield running


@pytest.fixture
async def http(edge: RunningEdge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def channel(edge: RunningEdge) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(edge.url.removeprefix("http://")) as channel:
        yield channel


async def test_envoy_itself_accepts_the_configuration(edge: RunningEdge) -> None:
    check = await asyncio.create_subprocess_exec(
        *(str(assets.envoy_binary()), "--mode", "validate", "-c", str(edge.edge.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await check.communicate()
    assert check.returncode == 0, output.decode()


async def test_a_body_arrives_byte_for_byte_and_so_does_the_answer(http: httpx.AsyncClient) -> None:
    body = b'{"do": "echo",   "text": "\\u00e9 \xc3\xa9"}'
    answer = await http.post(CHAT, content=body)
    assert answer.content == body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


async def test_each_event_of_a_stream_is_passed_on_at_once(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    async with http.stream("POST", CHAT, json={"do": "stream"}) as answer:
        lines = (line async for line in answer.aiter_lines() if line)
        assert await anext(lines) == 'data: {"n": 0}'
        gateway[0].may_go_on.set()
        assert [line async for line in lines] == ['data: {"n": 1}', "data: [DONE]"]


async def test_a_closed_connection_cancels_the_call_at_the_gateway(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    async with http.stream("POST", CHAT, json={"do": "hang"}) as answer:
        await anext(answer.aiter_lines())
    async with asyncio.timeout(5):
        await gateway[0].cancelled.wait()


@pytest.mark.parametrize("status", [400, 404, 429, 503])
async def test_the_gateway_chooses_the_status_of_an_error(
    http: httpx.AsyncClient, status: int
) -> None:
    answer = await http.post(CHAT, json={"do": "refuse", "status": status})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == "c"
    assert answer.headers["retry-after"] == "7"
    assert not [name for name in answer.headers if name.startswith(("x-hr-", "grpc-"))]


async def test_the_openai_client_raises_the_gateways_error(edge: RunningEdge) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{edge.url}/v1", api_key="none", max_retries=0
    ) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.completions.create(
                model="pebble", prompt="hi", extra_body={"do": "refuse", "status": 429}
            )
        assert refused.value.code == "c"
        assert (await client.models.retrieve("org/pebble")).id == "org/pebble"


async def test_internal_headers_from_clients_are_removed(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    await http.post(CHAT, json={"do": "echo"}, headers={"x-hr-status": "500", "x-other": "kept"})
    assert "x-hr-status" not in gateway[0].metadata[-1]
    assert gateway[0].metadata[-1]["x-other"] == "kept"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("PUT", CHAT), ("GET", "/")])
async def test_an_unknown_path_is_an_openai_error_that_lists_the_known_paths(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await http.request(method, f"{path}?secret=1")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "unknown_path"
    assert f"there is no {method} {path};" in error["message"]
    assert "POST /v1/chat/completions" in error["message"]


async def test_an_unknown_native_path_is_a_google_rpc_status(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v2/nothing")
    assert answer.status_code == 404
    status = answer.json()
    assert status["code"] == 5
    assert "there is no GET /v2/nothing;" in status["message"]
    assert "GET /v2/models" in status["message"]
    assert status["details"][0]["reason"] == "UNKNOWN_PATH"


async def test_a_body_over_16_mib_is_rejected_in_the_format_of_its_path(
    http: httpx.AsyncClient,
) -> None:
    openai_shape = await http.post(CHAT, content=b"x" * TOO_LARGE)
    native_shape = await http.post("/v2/models/pebble:generate", content=b"x" * TOO_LARGE)
    assert openai_shape.status_code == native_shape.status_code == 413
    assert openai_shape.json()["error"]["code"] == "body_too_large"
    assert native_shape.json()["details"][0]["reason"] == "BODY_TOO_LARGE"


async def test_a_body_of_10_mib_passes(http: httpx.AsyncClient) -> None:
    body = json.dumps({"do": "size", "text": "x" * 10 * 1024 * 1024})
    assert (await http.post(CHAT, content=body)).text == str(len(body))


async def test_typed_calls_are_transcoded_and_their_errors_keep_their_details(
    http: httpx.AsyncClient,
) -> None:
    listed = await http.get("/v2/models")
    assert listed.json()["models"][0]["name"] == "pebble"
    refused = await http.get("/v2/models/nothing")
    assert refused.status_code == 404
    assert refused.json()["details"][0]["reason"] == "MODEL_NOT_FOUND"


async def test_a_native_body_reaches_the_gateway_unparsed(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/org%2Fpebble:generate", content=b'{"broken"')
    assert answer.json() == {"model": "org/pebble", "bytes": '{"broken"'}


async def test_clients_cannot_set_envoys_retries_and_timeouts(
    http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    headers = {"x-envoy-retry-on": "5xx", "x-envoy-upstream-rq-timeout-ms": "1"}
    answer = await http.post(CHAT, json={"do": "echo"}, headers=headers)
    assert answer.status_code == 200
    kept = [name for name in gateway[0].metadata[-1] if name.startswith("x-envoy-")]
    assert set(kept) <= {"x-envoy-original-path", "x-envoy-original-method"}


async def test_native_grpc_passes_untouched(channel: grpc.aio.Channel) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateRequest(prompt="one two")
    texts = [event.delta.text async for event in stub.StreamGenerate(request)]
    assert texts == ["one", "two"]


async def test_grpc_errors_and_health_pass_untouched(channel: grpc.aio.Channel) -> None:
    models = models_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await models.GetModel(models_pb2.GetModelRequest(model="nothing"))
    assert from_rpc_error(failed.value).reason == "MODEL_NOT_FOUND"
    health = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(  # type: ignore[attr-defined]
        health_pb2.HealthCheckRequest()
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_cors_allows_pages_on_localhost_only(http: httpx.AsyncClient) -> None:
    async def preflight(origin: str) -> httpx.Headers:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return (await http.options(CHAT, headers=headers)).headers

    allowed = await preflight("http://localhost:3000")
    assert allowed["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in await preflight("https://example.com")


async def test_without_a_gateway_clients_get_retry_after(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as running, httpx.AsyncClient(trust_env=False) as http:
        openai_shape = await http.get(f"{running.url}/v1/models")
        native_shape = await http.get(f"{running.url}/v2/models")
    assert openai_shape.status_code == native_shape.status_code == 503
    assert openai_shape.headers["retry-after"] == native_shape.headers["retry-after"] == "1"
    assert openai_shape.json()["error"]["code"] == "gateway_unavailable"
    assert native_shape.json()["details"][0]["reason"] == "GATEWAY_UNAVAILABLE"


async def test_gateways_can_be_added_and_removed_while_envoy_runs(
    edge: RunningEdge, http: httpx.AsyncClient
) -> None:
    edge.edge.set_gateways([])
    await until(f"{edge.url}/v1/models", status=503)
    async with standin_gateway() as (_, port):
        edge.edge.set_gateways([("127.0.0.1", port)])
        await until(f"{edge.url}/v1/models")


async def test_unhealthy_gateways_get_no_requests_while_one_is_healthy(
    edge: RunningEdge, http: httpx.AsyncClient, gateway: tuple[Seen, int]
) -> None:
    async with (
        standin_gateway(serving=False) as (_, one),
        standin_gateway(serving=False) as (
            seen,
            other,
        ),
    ):
        edge.edge.set_gateways([("127.0.0.1", port) for port in (gateway[1], one, other)])
        unhealthy = f"{edge.admin_url}/clusters?format=json"

        async def noticed() -> bool:
            statuses = (await http.get(unhealthy)).json()["cluster_statuses"]
            hosts = [host for each in statuses for host in each.get("host_statuses", ())]
            failed = [h for h in hosts if h["health_status"].get("failed_active_health_check")]
            return len(hosts) == 3 and len(failed) == 2

        await eventually(noticed, within_s=10)
        for _ in range(20):
            assert (await http.post(CHAT, json={"do": "echo"})).status_code == 200
        assert len(gateway[0].metadata) == 20
        assert seen.metadata == []
        edge.edge.set_gateways([("127.0.0.1", other)])
        await eventually(lambda: reaches(seen, http), within_s=10)


async def reaches(seen: Seen, http: httpx.AsyncClient) -> bool:
    """Send a request; return whether this gateway has got one: where none is healthy, all do."""
    assert (await http.post(CHAT, json={"do": "echo"})).status_code == 200
    return bool(seen.metadata)


async def test_a_second_edge_on_the_same_port_does_not_start(
    tmp_path: Path, edge: RunningEdge
) -> None:
    port = int(edge.url.rpartition(":")[2])
    with pytest.raises(AssertionError, match="Address already in use"):
        async with running_edge(tmp_path / "second", port=port):
            pass
