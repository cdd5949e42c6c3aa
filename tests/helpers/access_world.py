"""A mesh with keys on: two tenants, resources of one, and the headers of every kind of caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx

from headrace.auth.keys import new_key
from headrace.auth.scopes import ADMIN, BATCHES, USER_SCOPES
from helpers.access_matrix import Json, Sample
from helpers.access_samples import samples
from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class World:
    """A mesh with two tenants, and the headers of every kind of caller."""

    url: str
    callers: Mapping[str, dict[str, str]]
    samples: Mapping[str, Sample]

    def sample(self, method: str) -> Sample:
        return self.samples[method.rpartition(".")[2]]


class Admin:
    """The administration API over REST, as one caller."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http, self._headers = http, {"authorization": f"Bearer {key}"}

    async def __call__(self, verb: str, path: str, body: Json | None = None) -> Json:
        answer = await self._http.request(
            verb, f"/v2/admin/{path}", json=body, headers=self._headers
        )
        assert answer.status_code == 200, f"{verb} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    async def key(self, tenant: str, *scopes: str, **more: Any) -> tuple[str, str]:
        """Make a key; return its resource name and the key."""
        body = {"scopes": scopes, "models": ["*"]} | more
        made = await self("POST", f"tenants/{tenant}/keys", body)
        return made["key"]["name"], made["secret"]


async def make_world(mesh: RunningMesh, key: str) -> World:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http:
        operator = Admin(http, key)
        for tenant in ("acme", "other"):
            await operator("POST", f"tenants?tenant_id={tenant}", {})
        callers = await _callers(http, operator, key)
        found = await _resources_of_other(http, operator)
    return World(mesh.url, callers, samples(**found))


async def _callers(http: httpx.AsyncClient, operator: Admin, key: str) -> dict[str, dict[str, str]]:
    soon = {"expire_time": _soon()}
    _, user = await operator.key("acme", *USER_SCOPES)
    _, batches = await operator.key("acme", BATCHES)
    _, admin = await operator.key("acme", ADMIN)
    _, expired = await operator.key("acme", "generate", **soon)
    name, revoked = await operator.key("acme", "generate", "embed", "models:read")
    await operator("POST", f"{name}:revoke", {})
    cookie = await _viewer(http, operator)
    callers = {
        "no key": {},
        "unknown key": _bearer(new_key()),
        "malformed key": _bearer(user[:-1] + ("0" if user[-1] != "0" else "1")),
        "foreign format": _bearer("sk-1234567890"),
        "expired key": _bearer(expired),
        "revoked key": _bearer(revoked),
        "unknown cookie": {"cookie": "headrace_session=" + "A" * 43} | SAME_ORIGIN,
        "cookie without same origin": {"cookie": cookie},
        "cookie from another origin": {
            "cookie": cookie,
            "origin": "https://elsewhere.example",
            "sec-fetch-site": "cross-site",
        },
        "viewer": {"cookie": cookie} | SAME_ORIGIN,
        "wrong scope": _bearer(batches),
        "user": _bearer(user),
        "admin": _bearer(admin),
        "operator": _bearer(key),
    }
    probe = {"headers": callers["expired key"]}

    async def is_expired() -> bool:
        return (await http.get("/v1/models", **probe)).status_code == 401  # type: ignore[arg-type]

    await eventually(is_expired, within_s=10)
    return callers


def _soon() -> str:
    """Return a time in two seconds, as JSON has it."""
    return (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _viewer(http: httpx.AsyncClient, operator: Admin) -> str:
    """Invite a viewer and accept; return the cookie."""
    invited = {"email": "viewer@example.com", "role": "ROLE_VIEWER"}
    token = (await operator("POST", "tenants/acme/invitations", invited))["token"]
    accepted = await http.post("/v2/admin/invitations:accept", json={"token": token})
    assert accepted.status_code == 200, accepted.text
    morsel = SimpleCookie(accepted.headers["set-cookie"])["headrace_session"]
    return f"headrace_session={morsel.value}"


async def _resources_of_other(http: httpx.AsyncClient, operator: Admin) -> dict[str, str]:
    name, secret = await operator.key("other", "generate", "models:read", "files")
    headers = _bearer(secret)
    background = {
        "model": "scripted",
        "input": "Hello",
        "background": True,
        "max_output_tokens": 2,
    }
    began = await http.post("/v1/responses", json=background, headers=headers)
    assert began.status_code == 200, began.text
    conversation = await http.post("/v1/conversations", json={}, headers=headers)
    assert conversation.status_code == 200, conversation.text
    person = await operator("POST", "people", {"email": "someone@other.example"})
    member = {"role": "ROLE_MEMBER"}
    await operator("POST", f"tenants/other/members?person={person['name']}", member)
    session = await http.post("/v2/admin/sessions", json={"key": secret})
    assert session.status_code == 200, session.text
    form: Json = {"files": {"file": ("rows.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    uploaded = await http.post("/v1/files", headers=headers, **form)
    assert uploaded.status_code == 200, uploaded.text
    return {
        "file": uploaded.json()["id"],
        "request": began.json()["id"].removeprefix("resp_"),
        "conversation": conversation.json()["id"],
        "key": name.rpartition("/")[2],
        "person": person["name"].rpartition("/")[2],
        "session": session.json()["name"].rpartition("/")[2],
    }


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
