"""What an outsider, another tenant and a process that was taken over try, on a real mesh with keys.

The access matrix has every method and caller; here are the ways around it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import nats
import pytest

from headrace.internal.v1.access_pb2 import SessionRow
from headrace.internal.v1.attach_pb2 import AttachRequest
from headrace.internal.v1.attach_pb2_grpc import AttachServiceStub
from headrace.internal.v1.delivery_pb2_grpc import DeliveryServiceStub
from headrace.rpc.delivery_secret import HEADER
from headrace.supervisor.state.state_dir import StateDir
from helpers.access_world import Admin
from helpers.raw_http import ask, request
from helpers.running_mesh import RunningMesh, start, stop

SAME_ORIGIN = "sec-fetch-site: same-origin"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    running = start(tmp_path_factory.mktemp("attacked"), "--engine", "scripted", "--auth", "keys")
    yield running
    stop(running)


@dataclass(frozen=True)
class Acme:
    """What the attackers rightly have: keys and a session of one tenant; and a target."""

    url: str
    operator: str
    user: str
    admin: str
    cookie: str
    others_key: str
    """Name of a key of the other tenant."""


@pytest.fixture(scope="module")
def acme(mesh: RunningMesh) -> Acme:
    async def prepare() -> Acme:
        key = (mesh.folder / "admin.key").read_text().strip()
        async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http:
            operator = Admin(http, key)
            _, user = await operator.key("acme", "generate", "models:read")
            _, admin = await operator.key("acme", "admin:*")
            others, _ = await operator.key("other", "generate")
            opened = await http.post("/v2/admin/sessions", json={"key": admin})
        cookie = opened.headers["set-cookie"].partition(";")[0]
        return Acme(mesh.url, key, user, admin, cookie, others)

    return asyncio.run(prepare())


async def status(acme: Acme, method: str, path: str, *headers: str, body: bytes = b"") -> int:
    return (await ask(acme.url, request(method, path, *headers, body=body))).status


ME = "/v2/admin/sessions/me"


@pytest.mark.parametrize(
    "headers",
    [
        ["x-hr-same-origin: 1"],
        ["X-HR-Same-Origin: 1", "X-Hr-Edge: "],
        ["x_hr_same_origin: 1", "x-hr-same-origin-bin: MQ=="],
        ["origin: null"],
        ["origin: http://elsewhere.example"],
        ["origin: http://headrace.test.elsewhere.example"],
        ["origin: http://headrace.test:81"],
        ["origin: https://headrace.test", "x-forwarded-proto: https"],
        ["origin: http://elsewhere.example", "origin: http://headrace.test"],
        ["sec-fetch-site: same-site"],
        ["sec-fetch-site: none"],
        ["sec-fetch-site: "],
        ["sec-fetch-site: cross-site", "origin: http://headrace.test"],
        [SAME_ORIGIN, "sec-fetch-site: cross-site"],
        ["sec-fetch-site: cross-site", SAME_ORIGIN],
        [SAME_ORIGIN, "authorization: Bearer x"],
        [SAME_ORIGIN, "cookie: headrace_session=" + "A" * 43],
    ],
)
async def test_a_cookie_counts_only_from_a_page_of_the_mesh(acme: Acme, headers: list[str]) -> None:
    cookie = f"cookie: {acme.cookie}"
    assert await status(acme, "GET", ME, cookie, SAME_ORIGIN) == 200
    assert await status(acme, "GET", ME, cookie, *headers) == 401


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; application/json", "x/json", ""])
async def test_what_a_form_can_send_does_not_count_with_a_cookie(acme: Acme, kind: str) -> None:
    async with httpx.AsyncClient(base_url=acme.url, trust_env=False) as http:
        headers = {"cookie": acme.cookie, "sec-fetch-site": "same-origin", "content-type": kind}
        path, content = "/v2/admin/tenants/acme/keys", b'{"scopes": ["admin:*"]}'
        answer = await http.post(path, content=content, headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        ["authorization: {0}"],
        ["authorization: Basic {0}"],
        ["authorization: Bearer {0}", "authorization: Bearer {0}"],
        ["authorization: Bearer {0}", "x-api-key: hr_other"],
        ["authorization: Bearer {0}, Bearer {0}"],
        ["authorization-bin: {0}"],
        ["cookie: headrace_session={0}", SAME_ORIGIN],
        ["x-hr-key: {0}", "proxy-authorization: Bearer {0}"],
    ],
)
async def test_a_key_counts_in_one_place_and_once(acme: Acme, headers: list[str]) -> None:
    shown = [each.format(acme.user) for each in headers]
    assert await status(acme, "GET", "/v2/models", f"x-api-key: {acme.user}") == 200
    assert await status(acme, "GET", "/v2/models", *shown) == 401
    assert await status(acme, "GET", f"/v2/models?key={acme.user}&api_key={acme.user}") == 401


@pytest.mark.parametrize(
    "path",
    [
        "//v2/admin/tenants",
        "/./v2/admin/tenants",
        "/v2/%61dmin/tenants",
        "/v2%2fadmin%2ftenants",
        "/v2\\admin\\tenants",
        "/v2/admin/tenants;x=1",
        "/v2/models/..;/admin/tenants",
        "/v2/models/%2e%2e/admin/tenants",
        "/health/../v2/admin/tenants",
        "/v2/admin/tenants%00",
        "/V2/ADMIN/TENANTS",
        "/headrace.admin.v1.TenantService/ListTenants",
        "/config_dump",
        "/metrics",
    ],
)
async def test_no_spelling_of_a_path_goes_round_the_check(acme: Acme, path: str) -> None:
    user = f"authorization: Bearer {acme.user}"
    for headers in ([], [user], [user, "x-http-method-override: DELETE"]):
        assert await status(acme, "GET", path, *headers) in (400, 401, 403, 404)


@pytest.mark.parametrize(
    "method",
    [
        "headrace.internal.v1.AttachService/Attach",
        "headrace.internal.v1.DeliveryService/Deliver",
        "HEADRACE.admin.v1.KeyService/ListKeys",
    ],
)
async def test_inner_services_are_not_at_the_public_port(acme: Acme, method: str) -> None:
    async with grpc.aio.insecure_channel(urlsplit(acme.url).netloc) as channel:
        metadata = (("authorization", f"Bearer {acme.operator}"),)
        call: Any = channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_gateway_gives_no_answers_to_programs_of_its_machine(
    acme: Acme, mesh: RunningMesh
) -> None:
    home = StateDir(mesh.folder)
    sent = {"prompt": "Of acme", "request_id": "theirs", "detached": True}
    async with httpx.AsyncClient(base_url=acme.url, trust_env=False, timeout=30) as http:
        headers = {"authorization": f"Bearer {acme.user}"}
        path = f"/v2/models/{mesh.model}:generate"
        begun = await http.post(path, json=sent, headers=headers)
        assert begun.status_code == 202, begun.text
        port = home.read_process("gateway-0").ports["delivery"]
        key = ("authorization", f"Bearer {acme.operator}")
        secret = (HEADER, home.secrets.delivery.read_text().strip())
        forged, unknown = AttachRequest(request_id="acme/theirs"), AttachRequest(request_id="a/b")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            attach = AttachServiceStub(channel).Attach
            deliver = DeliveryServiceStub(channel).Deliver
            for metadata in ((key,), (key, (HEADER, "0" * 64))):
                # Why nothing is written: a refusal that crosses a message is reported as INTERNAL.
                calls = (attach(forged, metadata=metadata), deliver(metadata=metadata))
                refused = [await call.code() for call in calls]
                assert refused == [grpc.StatusCode.UNAUTHENTICATED] * 2
            assert await attach(unknown, metadata=(secret,)).code() is grpc.StatusCode.NOT_FOUND
        answer = await http.get("/v2/requests/theirs:stream", headers=headers)
        assert answer.status_code == 200, answer.text


ADMIN_KEY = {"scopes": ["admin:*"]}
USER_KEY = {"scopes": ["generate"], "models": ["*"]}


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "tenants/other/keys", None),
        ("GET", "tenants/*/keys", None),
        ("GET", "tenants/acme%2F..%2Fother/keys", None),
        ("GET", "tenants/acme/keys/{other}", None),
        ("GET", "tenants/-/keys/{other}", None),
        ("POST", "tenants/-/keys/{other}:rotate", {}),
        ("POST", "tenants/-/keys/{other}:revoke", {}),
        ("PATCH", "tenants/acme/keys/{other}?update_mask=scopes", USER_KEY),
        ("POST", "tenants/headrace/keys", ADMIN_KEY),
        ("POST", "tenants/-/keys", USER_KEY),
        ("POST", "tenants/new/keys", ADMIN_KEY),
        ("POST", "tenants/acme/keys", {"scopes": ["admin:*", "generate"]}),
        ("POST", "tenants/acme/keys", {"scopes": ["public"], "models": ["*"]}),
        ("POST", "tenants/acme/keys", USER_KEY | {"person": "people/another"}),
        ("POST", "tenants/acme/invitations", {"email": "a@b.example", "role": "ROLE_OWNER"}),
        ("POST", "tenants/other/invitations", {"email": "a@b.example", "role": "ROLE_VIEWER"}),
        ("PATCH", "tenants/acme?update_mask=weight", {"weight": 1000}),
        ("POST", "sessions:switchTenant", {"tenant": "tenants/other"}),
        ("GET", "requests?parent=tenants/-", None),
        ("POST", "tenants/acme/requests/..%2F..%2Fother%2Frequests%2Fx:cancel", {}),
    ],
)
async def test_an_administrator_reaches_no_further_than_the_tenant(
    acme: Acme, verb: str, path: str, body: dict[str, object] | None
) -> None:
    path = "/v2/admin/" + path.replace("{other}", acme.others_key.rpartition("/")[2])
    async with httpx.AsyncClient(base_url=acme.url, trust_env=False, timeout=30) as http:
        headers = {"authorization": f"Bearer {acme.admin}"}
        answer = await http.request(verb, path, json=body, headers=headers)
        assert answer.status_code in (400, 403, 404), answer.text
        mine = await http.get("/v2/admin/tenants/-/keys", headers=headers)
    assert {each["name"].split("/")[1] for each in mine.json()["keys"]} == {"acme"}


async def test_of_those_who_accept_an_invitation_at_once_one_does(acme: Acme) -> None:
    async with httpx.AsyncClient(base_url=acme.url, trust_env=False, timeout=30) as http:
        invited = {"email": "raced@example.com", "role": "ROLE_MEMBER"}
        made = await Admin(http, acme.admin)("POST", "tenants/acme/invitations", invited)
        token = {"token": made["token"]}
        accepting = [http.post("/v2/admin/invitations:accept", json=token) for _ in range(6)]
        answers = await asyncio.gather(*accepting)
    assert sorted(each.status_code for each in answers) == [200, *[404] * 5]


async def test_no_key_outlives_a_tenant_that_is_deleted_meanwhile(acme: Acme) -> None:
    async with httpx.AsyncClient(base_url=acme.url, trust_env=False, timeout=30) as http:
        _, admin = await Admin(http, acme.operator).key("brief", "admin:*")
        headers = {"authorization": f"Bearer {admin}"}

        async def make() -> httpx.Response:
            path = "/v2/admin/tenants/brief/keys"
            return await http.post(path, json=ADMIN_KEY, headers=headers)

        async def delete() -> None:
            await Admin(http, acme.operator)("DELETE", "tenants/brief?force=true")

        answers = await asyncio.gather(make(), make(), delete(), make(), make())
        made = [each.json() for each in answers if isinstance(each, httpx.Response)]
        await Admin(http, acme.operator).key("brief", "admin:*")  # a tenant of the same name
        for key in [admin, *(each["secret"] for each in made if "secret" in each)]:
            headers = {"authorization": f"Bearer {key}"}
            assert (await http.get("/v2/admin/tenants/brief", headers=headers)).status_code == 401


async def test_a_worker_that_was_taken_over_opens_no_session(acme: Acme, mesh: RunningMesh) -> None:
    home = StateDir(mesh.folder)
    port = home.read_process("nats").ports["nats"]
    password = home.secrets.password("worker")
    cookie, until = "B" * 43, round(time.time() * 1000) + 600_000
    row = SessionRow(
        session_id="forged", tenant="headrace", role="owner", person="x", expire_ms=until
    )
    subject = "$O.headrace_tokenizers.C.forged"
    target = f"$KV.headrace_sessions.{sha256(cookie.encode()).hexdigest()}"
    client = await nats.connect(f"nats://127.0.0.1:{port}", user="worker", password=password)
    await client.publish(subject, row.SerializeToString())
    await client.publish(target, row.SerializeToString())
    read = f"$JS.API.DIRECT.GET.OBJ_headrace_tokenizers.{subject}"
    await client.publish(read, b"", reply=target)
    await client.flush()
    await asyncio.sleep(0.5)
    await client.close()
    forged = f"cookie: headrace_session={cookie}"
    assert await status(acme, "GET", "/v2/admin/tenants", forged, SAME_ORIGIN) == 401
