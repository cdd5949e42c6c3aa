"""gRPC-Web at the edge: what programs of any origin get, and what pages of other origins do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace.v1.models_pb2 import ListModelsRequest, ListModelsResponse
from helpers.grpc_web import BINARY, TEXT, call, framed
from helpers.running_edge import running_edge, until
from helpers.standin_gateway import standin_gateway

LIST = "headrace.v1.ModelService/ListModels"
STREAM = "headrace.v1.GenerationService/StreamGenerate"
ORIGIN, FORGED = "https://app.example.com", "https://evil.example"
TOO_LARGE = {"x-large": "x" * 70_000}
UNKNOWN, PERMISSION_DENIED, EXHAUSTED, UNAVAILABLE = 2, 7, 8, 14


@asynccontextmanager
async def edge_of(folder: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    options = {"allowed_origins": (ORIGIN,)} | options
    async with (
        standin_gateway() as (_, port),
        running_edge(folder, **options) as edge,
        httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as http,
    ):
        edge.edge.set_gateways([("127.0.0.1", port)])
        await until(f"{edge.url}/v1/models")
        yield http


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with edge_of(tmp_path) as served:
        yield served


@pytest.mark.parametrize("kind", [BINARY, "application/grpc-web", TEXT])
async def test_unary_and_streamed_calls_are_answered(http: httpx.AsyncClient, kind: str) -> None:
    listed = await call(http, LIST, ListModelsRequest(), kind=kind)
    assert listed.status == 0
    assert ListModelsResponse.FromString(listed.messages[0]).models[0].name == "pebble"
    streamed = await call(http, STREAM, GenerateRequest(prompt="a b c"), kind=kind)
    events = [StreamGenerateResponse.FromString(each) for each in streamed.messages]
    assert [event.delta.text for event in events] == ["a", "b", "c"]
    assert streamed.status == 0


async def test_errors_of_envoy_are_grpc_statuses(tmp_path: Path) -> None:
    rebound = {"host": "evil.example"}
    async with (
        running_edge(tmp_path) as edge,
        httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as http,
    ):
        administration = "headrace.admin.v1.TenantService/ListTenants"
        for method, headers, status, text in (
            (LIST, {}, UNAVAILABLE, "no gateway could be reached"),
            (LIST, TOO_LARGE, EXHAUSTED, "61440 bytes"),
            (administration, rebound, PERMISSION_DENIED, "at localhost or 127.0.0.1 only"),
        ):
            answer = await call(http, method, ListModelsRequest(), headers)
            assert (answer.http_status, answer.status) == (200, status), method
            assert text in answer.message
            assert answer.headers["content-type"] == BINARY
            # Envoy chooses the status by that of HTTP.
            coarse = await call(http, method, ListModelsRequest(), headers, kind=TEXT)
            assert coarse.status in (status, UNKNOWN)
            assert text in coarse.message


async def test_a_page_of_a_listed_origin_may_call_and_read_every_error(
    http: httpx.AsyncClient,
) -> None:
    asked = "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent"
    headers = {"access-control-request-method": "POST", "access-control-request-headers": asked}
    allowed = await http.options(f"/{STREAM}", headers=headers | {"origin": ORIGIN})
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert allowed.headers["access-control-allow-headers"] == "*, authorization"

    page = {"origin": ORIGIN}
    refused = await call(http, LIST, ListModelsRequest(), page | TOO_LARGE)
    packed = {"content-encoding": "br", "content-type": "application/json"}
    rest = await http.post("/v1/completions", content=b"{}", headers=page | packed)
    assert (refused.status, rest.status_code) == (EXHAUSTED, 415)
    for answer in (refused.headers, rest.headers):
        assert answer["access-control-allow-origin"] == ORIGIN
        exposed = answer["access-control-expose-headers"].split(",")
        assert {"grpc-status", "grpc-message", "grpc-status-details-bin"} <= set(exposed)
        assert {"x-request-id", "retry-after", "www-authenticate"} <= set(exposed)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain; application/grpc-web",
        "multipart/form-data; boundary=application/grpc",
        "application/x-www-form-urlencoded;application/grpc-web+proto",
    ],
)
async def test_a_page_of_another_origin_cannot_call_as_a_form_would(
    http: httpx.AsyncClient, kind: str
) -> None:
    """These are the types for which its browser requests no permission."""
    body = framed(ListModelsRequest())
    for method in (LIST, STREAM):
        headers = {"origin": FORGED, "content-type": kind, "accept": BINARY}
        answer = await http.post(f"/{method}", content=body, headers=headers)
        assert answer.status_code == 403
        assert "grpc-status" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


async def test_a_page_of_another_origin_gets_no_permission(http: httpx.AsyncClient) -> None:
    headers = {"access-control-request-method": "POST", "origin": FORGED}
    asked = headers | {"access-control-request-headers": "content-type,x-grpc-web"}
    for method in (LIST, STREAM, "headrace.admin.v1.TenantService/ListTenants"):
        answer = await http.options(f"/{method}", headers=asked)
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-headers" not in answer.headers
