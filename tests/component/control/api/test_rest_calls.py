"""Bodies and queries of the administration through a real Envoy: nothing in them is passed over."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from headrace.admin.v1 import keys_pb2
from helpers.control_edge import ControlEdge, control_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = "/v2/admin/tenants/acme/keys"
KEY = {"scopes": ["models:read"], "models": ["*"]}
JSON = {"content-type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    async with control_edge(tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(edge: ControlEdge) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {edge.admin_key}"}
    async with httpx.AsyncClient(
        base_url=edge.url, headers=headers, trust_env=False, timeout=20
    ) as client:
        yield client


async def keys_of(edge: ControlEdge, tenant: str) -> int:
    async with edge.admin() as admin:
        listed = await admin.keys.ListKeys(keys_pb2.ListKeysRequest(parent=f"tenants/{tenant}"))
        return len(listed.keys)


async def test_a_misspelt_restriction_makes_no_key(
    edge: ControlEdge, http: httpx.AsyncClient
) -> None:
    keys = "/v2/admin/tenants/typos/keys"
    assert (await http.post(keys, json=KEY | {"networks": ["10.0.0.0/8"]})).status_code == 200
    answer = await http.post(keys, json=KEY | {"network": ["10.0.0.0/8"]})
    assert answer.status_code == 400, answer.text
    error = answer.json()
    assert error["message"] == "unknown field key.network; did you mean key.networks?"
    assert error["details"][0]["reason"] == "INVALID_REQUEST"
    assert await keys_of(edge, "typos") == 1


async def test_pieces_and_any_content_type_are_checked_alike(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"scopes": ["models:read"], ', b'"model": ["*"]}'):
            yield piece

    for headers in (JSON, {"content-type": "text/plain"}, {}):
        answer = await http.post(KEYS, content=pieces(), headers=headers)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("unknown field key.model; did you mean ")


async def test_a_client_cannot_show_another_body(http: httpx.AsyncClient) -> None:
    shown = {"x-hr-body": base64.b64encode(b"{}").decode()}
    assert (await http.post(KEYS, json={"modelz": []}, headers=shown)).status_code == 400
    assert (await http.post(KEYS, json=KEY)).status_code == 200
    none = {"x-hr-body": base64.b64encode(b'{"modelz": []}').decode()}
    assert (await http.get(KEYS, headers=none)).status_code == 200


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
async def test_calls_without_a_body_are_as_before(http: httpx.AsyncClient, verb: str) -> None:
    assert (await http.request(verb, "/v2/admin/tenants")).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{}", b" {} "])
async def test_a_body_may_be_empty(http: httpx.AsyncClient, content: bytes) -> None:
    answer = await http.post("/v2/admin/workers/none:undrain", content=content, headers=JSON)
    assert answer.status_code == 404, answer.text


async def test_the_largest_body_arrives_and_a_larger_one_is_refused(
    http: httpx.AsyncClient,
) -> None:
    def body(size: int) -> bytes:
        start = b'{"scopes": ["models:read"], "models": ["*"]'
        return start + b" " * (size - len(start) - 1) + b"}"

    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield body(size)[:100]
        yield body(size)[100:]

    assert (await http.post(KEYS, content=body(24_576), headers=JSON)).status_code == 200
    sent: list[Any] = [body(24_577), pieces(24_577), pieces(3_000_000)]
    for content in sent:
        answer = await http.post(KEYS, content=content, headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["message"] == "an administration body may have 24576 bytes"


async def test_a_packed_body_is_refused_with_what_to_do(http: httpx.AsyncClient) -> None:
    packed = JSON | {"content-encoding": "gzip"}
    answer = await http.post(KEYS, content=gzip.compress(b"{}"), headers=packed)
    assert answer.status_code == 415
    assert "uncompressed" in answer.json()["message"]


async def test_a_misspelt_parameter_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post(KEYS, json=KEY)).status_code == 200
    assert (await http.get(f"{KEYS}?page_size=1")).status_code == 200
    answer = await http.get(f"{KEYS}?page_sise=1")
    assert answer.status_code == 400
    assert answer.json()["message"] == "unknown parameter page_sise; did you mean page_size?"


async def test_who_may_not_call_learns_no_names_of_fields(edge: ControlEdge) -> None:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as nobody:
        answer = await nobody.post(KEYS, json={"network": []})
    assert answer.status_code == 401
    assert "network" not in answer.text


async def test_a_provider_may_add_parameters(edge: ControlEdge, http: httpx.AsyncClient) -> None:
    answer = await http.get("/v2/admin/oidc/callback?code=c&state=s&session_state=x")
    assert "session_state" not in answer.text


async def test_no_log_has_a_body(edge: ControlEdge, http: httpx.AsyncClient) -> None:
    secret = {"key": "hr_not-a-key-of-anybody"}
    await http.post("/v2/admin/sessions", json=secret)
    await http.post("/v2/admin/sessions", json=secret | {"more": 1})
    folder = edge.log.parent
    logs = [edge.log, *(folder / "logs").iterdir()]
    assert len(logs) > 2
    for log in logs:
        assert "hr_not" not in log.read_text()
        assert base64.b64encode(b'{"key":"hr_').decode() not in log.read_text()
