"""What Envoy proves about callers, what it keeps secret, and which server gets a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.admin.v1 import tenants_pb2, tenants_pb2_grpc
from helpers.eventually import eventually
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.standin_control import standin_control
from helpers.standin_gateway import Seen, standin_gateway

CHAT = "/v1/completions"
PROOF = "3f2a9c" * 6
ECHO = {"do": "echo"}
PERMISSION_DENIED = "7"


@asynccontextmanager
async def edge_before_gateway(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[RunningEdge, httpx.AsyncClient, Seen]]:
    async with (
        standin_gateway() as (seen, port),
        running_edge(folder, proof=PROOF, **options) as edge,
        httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as http,
    ):
        edge.edge.set_gateways([("127.0.0.1", port)])
        await until(f"{edge.url}/v1/models")
        yield edge, http, seen


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[RunningEdge, httpx.AsyncClient, Seen]]:
    async with edge_before_gateway(tmp_path) as running:
        yield running


Served = tuple[RunningEdge, httpx.AsyncClient, Seen]


async def test_the_gateway_gets_the_clients_address_and_the_proof(served: Served) -> None:
    _, http, seen = served
    forged = {"x-hr-client": "6.6.6.6", "x-hr-edge": "forged", "x-forwarded-for": "6.6.6.6"}
    await http.post(CHAT, json=ECHO, headers=forged | {"x-hr-same-origin": "1"})
    assert seen.metadata[-1]["x-hr-client"] == "127.0.0.1"
    assert seen.metadata[-1]["x-hr-edge"] == PROOF
    assert "x-hr-same-origin" not in seen.metadata[-1]


async def test_the_address_is_the_trusted_proxys_word_and_not_the_clients(tmp_path: Path) -> None:
    async with edge_before_gateway(tmp_path, trusted_proxies=1) as (_, http, seen):
        await http.post(CHAT, json=ECHO, headers={"x-forwarded-for": "6.6.6.6, 203.0.113.9"})
        assert seen.metadata[-1]["x-hr-client"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://mesh.test"}, True),
        ({"origin": "HTTP://MESH.test"}, True),
        ({}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://mesh.test"}, False),
        ({"origin": "https://mesh.test"}, False),
        ({"origin": "http://mesh.test:81"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin", "content-type": "text/plain"}, False),
        ({"sec-fetch-site": "same-origin", "content-type": "application/jsonx"}, False),
        ({"sec-fetch-site": "same-origin", "content-type": "application/json; charset=x"}, True),
    ],
)
async def test_same_origin_is_proven_by_the_browser_and_a_type_that_forms_cannot_send(
    served: Served, headers: dict[str, str], same: bool
) -> None:
    _, http, seen = served
    kind = {"content-type": "application/json", "host": "mesh.test"}
    await http.post(CHAT, content=b'{"do": "echo"}', headers=kind | headers)
    assert ("x-hr-same-origin" in seen.metadata[-1]) is same


async def test_the_scheme_of_an_origin_is_that_of_the_trusted_proxys_listener(
    tmp_path: Path,
) -> None:
    page = {"host": "mesh.test", "origin": "https://mesh.test", "x-forwarded-proto": "https"}
    async with edge_before_gateway(tmp_path / "proxied", trusted_proxies=1) as (_, http, seen):
        await http.post(CHAT, json=ECHO, headers=page)
        assert seen.metadata[-1]["x-hr-same-origin"] == "1"
    async with edge_before_gateway(tmp_path / "direct") as (_, http, seen):
        await http.post(CHAT, json=ECHO, headers=page)
        assert "x-hr-same-origin" not in seen.metadata[-1]


async def test_pages_of_listed_origins_may_call_and_without_cookies(tmp_path: Path) -> None:
    options = {"allowed_origins": ("https://app.example.com",)}
    async with edge_before_gateway(tmp_path, **options) as (_, http, _seen):

        async def preflight(origin: str) -> httpx.Headers:
            headers = {"origin": origin, "access-control-request-method": "POST"}
            return (await http.options(CHAT, headers=headers)).headers

        listed = await preflight("https://app.example.com")
        assert listed["access-control-allow-origin"] == "https://app.example.com"
        assert "access-control-allow-credentials" not in listed
        assert "access-control-allow-origin" not in await preflight("https://app.example.com.evil")


FORGED = "https://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": FORGED, "content-type": "text/plain"}, 403),
        ({"origin": FORGED, "content-type": "application/x-www-form-urlencoded"}, 403),
        ({"origin": "null", "content-type": "text/plain"}, 403),
        ({"origin": "http://localhost.evil.example", "content-type": "text/plain"}, 403),
        ({"origin": "http://localhost:3000", "content-type": "text/plain"}, 200),
        ({"origin": "http://mesh.test", "content-type": "text/plain"}, 200),
        # Its browser has requested permission, which only listed origins get.
        ({"origin": FORGED, "content-type": "application/json"}, 200),
        ({"content-type": "application/x-www-form-urlencoded"}, 200),
    ],
)
async def test_what_pages_send_without_permission_is_refused(
    served: Served, headers: dict[str, str], status: int
) -> None:
    _, http, _seen = served
    body = b'{"do": "echo"}'
    answer = await http.post(CHAT, content=body, headers={"host": "mesh.test"} | headers)
    assert answer.status_code == status
    if status == 403:
        assert "--allow-origin" in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("options", "host", "is_refused"),
    [
        ({"proof": ""}, "evil.example", True),
        ({"proof": ""}, "127.0.0.1.evil.example:8080", True),
        ({"proof": ""}, "localhost:8080", False),
        ({"proof": ""}, "[::1]:8080", False),
        ({"proof": "", "trusted_proxies": 1}, "mesh.example", False),
        ({"proof": PROOF}, "mesh.example", False),
    ],
)
async def test_without_keys_no_name_but_the_loopbacks_administers(
    tmp_path: Path, options: dict[str, Any], host: str, is_refused: bool
) -> None:
    async with (
        running_edge(tmp_path, **options) as edge,
        httpx.AsyncClient(base_url=edge.url, trust_env=False) as http,
    ):
        headers = {"host": host}
        rest = await http.get("/v2/admin/tenants", headers=headers)
        assert rest.status_code == (403 if is_refused else 503)
        native = {"content-type": "application/grpc-web"} | headers
        call = await http.post("/headrace.admin.v1.TenantService/ListTenants", headers=native)
        assert (call.headers["grpc-status"] == PERMISSION_DENIED) is is_refused
        assert (await http.get("/v1/models", headers=headers)).status_code == 503


async def test_the_access_log_has_no_secret(served: Served) -> None:
    edge, http, _ = served
    secrets = {
        "authorization": "Bearer hr_secret1",
        "x-api-key": "hr_secret2",
        "cookie": "headrace_session=hr_secret3",
    }
    await http.post(f"{CHAT}?key=hr_secret4", json=ECHO, headers=secrets)
    await http.get("/v2/admin/oidc/callback?code=hr_secret5&state=hr_secret6", headers=secrets)
    log = edge.logs / "access.log"
    await eventually(lambda: '"/v2/admin/oidc/callback"' in log.read_text(), within_s=10)
    assert CHAT in log.read_text()
    assert "hr_secret" not in log.read_text() + (edge.logs / "envoy.log").read_text()


async def test_the_proof_cannot_be_read_by_others(served: Served) -> None:
    edge, http, _ = served
    assert PROOF in edge.edge.config.read_text()
    assert edge.edge.config.stat().st_mode & 0o077 == 0
    for path in ("config_dump", "quitquitquit", "logging"):
        assert (await http.post(f"{edge.admin_url}/{path}")).status_code == 403


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("UNAUTHENTICATED", 401, "invalid_api_key"),
        ("PERMISSION_DENIED", 403, "permission_denied"),
        ("ALREADY_EXISTS", 409, "already_exists"),
        ("FAILED_PRECONDITION", 400, "failed_precondition"),
    ],
)
async def test_a_refusal_before_the_handler_has_its_http_status(
    served: Served, code: str, status: int, reason: str
) -> None:
    _, http, _ = served
    answer = await http.post(CHAT, json={"do": "abort", "code": code})
    assert answer.status_code == status
    assert answer.json()["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": reason,
    }


async def test_calls_of_the_administration_go_to_control_and_others_to_the_gateway(
    served: Served,
) -> None:
    edge, http, _ = served
    async with standin_control() as port:
        edge.edge.set_controls([("127.0.0.1", port)])
        await until(f"{edge.url}/v2/admin/tenants/acme")
        assert (await http.get("/v2/admin/tenants/acme")).json()["name"] == "tenants/acme"
        assert (await http.get("/v2/models")).json()["models"][0]["name"] == "pebble"
        denied = await http.get("/v2/admin/tenants/nobody")
        assert (denied.status_code, denied.json()["code"]) == (403, 7)
        async with grpc.aio.insecure_channel(edge.url.removeprefix("http://")) as channel:
            stub = tenants_pb2_grpc.TenantServiceStub(channel)
            tenant = await stub.GetTenant(tenants_pb2.GetTenantRequest(name="tenants/one"))
            assert tenant.name == "tenants/one"


async def test_without_control_the_gateway_serves_and_the_administration_says_why_not(
    served: Served,
) -> None:
    edge, http, _ = served
    answer = await http.get("/v2/admin/tenants")
    assert answer.status_code == 503
    assert answer.json()["details"][0]["reason"] == "CONTROL_UNAVAILABLE"
    assert (await http.post(CHAT, json=ECHO)).status_code == 200
    async with grpc.aio.insecure_channel(edge.url.removeprefix("http://")) as channel:
        stub = tenants_pb2_grpc.TenantServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="no control could be reached"):
            await stub.GetTenant(tenants_pb2.GetTenantRequest(name="tenants/one"))


async def test_an_unknown_path_of_the_administration_lists_its_paths(served: Served) -> None:
    _, http, _ = served
    answer = await http.get("/v2/admin/nothing/at/all")
    assert answer.status_code == 404
    message = answer.json()["message"]
    assert "GET /v2/admin/tenants/{tenant}/keys/{key}" in message
    assert "/v2/models" not in message
