"""The caller of each call is identified once, from its headers, for every API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import httpx
import pytest

from headrace.rpc.status import from_rpc_error
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace_gateway.base.settings import GatewaySettings
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission

BODY = {"model": "valley", "prompt": "Hello"}


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    async with running_api(admission, limits=GatewaySettings(tenant_header="x-tenant")) as running:
        yield running


async def test_a_call_is_of_the_tenant_that_its_header_names(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    await http.post("/v1/completions", json=BODY, headers={"x-tenant": "a"})
    assert admission.last.request.tenant == "a"
    await http.post("/v2/models/valley:generate", json={"prompt": "Hello"})
    assert admission.last.request.tenant == "default"
    request = GenerateRequest(model="valley", prompt="Hello")
    await GenerationServiceStub(channel).Generate(request, metadata=(("x-tenant", "b"),))
    assert admission.last.request.tenant == "b"


async def test_a_malformed_header_is_refused_in_the_format_of_each_api(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    headers = {"x-tenant": "a b"}
    answer = await http.post("/v1/completions", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-tenant")
    answer = await http.post(
        "/v2/models/valley:generate", json={"prompt": "Hello"}, headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    request = GenerateRequest(model="valley", prompt="Hello")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await GenerationServiceStub(channel).Generate(request, metadata=tuple(headers.items()))
    assert from_rpc_error(refused.value).field == "x-tenant"
    assert not admission.generations
