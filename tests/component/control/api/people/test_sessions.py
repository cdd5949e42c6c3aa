"""Sessions through a real Envoy: opened with keys, seen, ended, and when they do not count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from headrace.admin.v1 import keys_pb2
from headrace.admin.v1 import people_pb2 as pb
from headrace.bus.subjects import KEYS_TABLE, SESSIONS_TABLE
from headrace.internal.v1.access_pb2 import SessionRow
from helpers.control_edge import SESSION, Browser, ControlEdge, control_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    async with control_edge(tmp_path_factory.mktemp("edge"), session_s=3600) as running:
        yield running


async def key_of(edge: ControlEdge, tenant: str, **fields: Any) -> str:
    async with edge.admin() as admin:
        return (await admin.create_key(tenant, **fields)).secret


async def make_person(edge: ControlEdge, tenant: str, email: str, role: str) -> str:
    """Return people/ID."""
    async with edge.admin() as admin:
        await admin.create_key(tenant)
        new = pb.CreatePersonRequest(person=pb.Person(email=email))
        person: pb.Person = await admin.people.CreatePerson(new)
        member = pb.Member(role=pb.Role.Value(f"ROLE_{role.upper()}"))
        await admin.members.CreateMember(
            pb.CreateMemberRequest(parent=f"tenants/{tenant}", person=person.name, member=member)
        )
        return person.name


async def own_key(edge: ControlEdge, tenant: str, email: str) -> str:
    """Return a key that this person has made after signing in at the provider."""
    async with edge.browser() as browser:
        await browser.sign_in(email=email, subject=email)
        person = (await browser.me()).json()["person"]
        key = {"person": person, "scopes": ["models:read"], "models": ["*"]}
        answer = await browser.call("POST", f"tenants/{tenant}/keys", json=key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["secret"])


def digest_of(browser: Browser) -> str:
    return sha256((browser.session or "").encode()).hexdigest()


async def test_a_session_may_do_what_its_key_may_and_holds_its_restrictions(
    edge: ControlEdge,
) -> None:
    limited = {"scopes": ["models:read"], "models": ["chat"], "networks": ["127.0.0.0/8"]}
    key = await key_of(edge, "limited", **limited)
    async with edge.browser() as browser:
        answer = await browser.sign_in_with_key(key)
        assert answer.status_code == 200, answer.text
        assert "Max-Age=3600" in answer.headers["set-cookie"]
        me = (await browser.me()).json()
        assert (me["tenant"], me["scopes"]) == ("tenants/limited", ["models:read"])
        assert me["key"] == f"tenants/limited/keys/{key[3:14]}"
        row = SessionRow.FromString((await edge.rows(SESSIONS_TABLE))[digest_of(browser)])
        assert (list(row.models), list(row.networks), row.role, row.person) == (
            ["chat"],
            ["127.0.0.0/8"],
            "",
            "",
        )
        denied = await browser.call("GET", "people")
        assert denied.status_code == 403


async def test_a_session_does_not_outlive_its_key(edge: ControlEdge) -> None:
    async with edge.admin() as admin:
        made: keys_pb2.CreateKeyResponse = await admin.create_key("brief")
    async with edge.browser() as browser:
        await browser.sign_in_with_key(made.secret)
        assert (await browser.me()).status_code == 200
        async with edge.admin() as admin:
            await admin.keys.RevokeKey(keys_pb2.RevokeKeyRequest(name=made.key.name))
        assert (await browser.me()).status_code == 401
        assert digest_of(browser) not in await edge.rows(SESSIONS_TABLE)


@pytest.mark.parametrize("key", ["", "x", "hr_" + "a" * 61, "x\r\nx-hr-edge: 1"])
async def test_what_is_no_valid_key_opens_nothing(edge: ControlEdge, key: str) -> None:
    async with edge.browser() as browser:
        answer = await browser.sign_in_with_key(key)
        assert (answer.status_code, browser.session) == (401, None)
        assert answer.json()["message"] == "Incorrect API key provided."


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
    ],
)
async def test_no_page_of_another_site_signs_anybody_in(
    edge: ControlEdge, headers: dict[str, str]
) -> None:
    body = f'{{"key": "{edge.admin_key}"}}'
    async with edge.browser() as browser:
        headers = {"content-type": "application/json"} | headers
        answer = await browser.call("POST", "sessions", content=body, headers=headers)
        assert (answer.status_code, browser.session) == (403, None)


async def test_scripts_without_a_browser_sign_in_too(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        answer = await browser.http.post("/v2/admin/sessions", json={"key": edge.admin_key})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "none"}, {"x-hr-same-origin": "1"}],
)
async def test_a_cookie_without_same_origin_is_no_caller(
    edge: ControlEdge, headers: dict[str, str]
) -> None:
    async with edge.browser() as browser:
        await browser.sign_in_with_key(edge.admin_key)
        answer = await browser.http.get("/v2/admin/sessions/me", headers=headers)
        assert answer.status_code == 401
        assert (await browser.me()).status_code == 200


async def test_signing_out_clears_the_cookie_and_holds_for_a_copy_of_it(edge: ControlEdge) -> None:
    async with edge.browser() as browser, edge.browser() as thief:
        await browser.sign_in_with_key(edge.admin_key)
        thief.http.cookies.set(SESSION, browser.session or "", domain="127.0.0.1", path="/")
        assert (await thief.me()).status_code == 200
        digest = digest_of(browser)
        answer = await browser.call("DELETE", "sessions/me")
        assert answer.status_code == 200, answer.text
        assert answer.headers["set-cookie"].startswith(f"{SESSION}=; Path=/; Max-Age=0")
        assert browser.session is None
        assert (await thief.me()).status_code == 401
        assert digest not in await edge.rows(SESSIONS_TABLE)


async def test_who_has_a_key_is_told_who_this_is(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        headers = {"authorization": f"Bearer {edge.admin_key}"}
        me = (await browser.http.get("/v2/admin/sessions/me", headers=headers)).json()
        assert (me["name"], me["tenant"], me["scopes"]) == (
            "sessions/me",
            "tenants/headrace",
            ["admin:*"],
        )
        assert me["client"] == "127.0.0.1"


async def test_sessions_of_others_are_not_found(edge: ControlEdge) -> None:
    mine, theirs = await key_of(edge, "one"), await key_of(edge, "two")
    async with edge.browser() as one, edge.browser() as two:
        await one.sign_in_with_key(mine)
        other = (await two.sign_in_with_key(theirs)).json()["name"]
        unknown = await one.call("GET", "sessions/0000000000000000")
        for method in ("GET", "DELETE"):
            answer = await one.call(method, other)
            assert answer.status_code == unknown.status_code == 404
        listed = (await one.call("GET", "sessions")).json()["sessions"]
        assert other not in [each["name"] for each in listed]
        assert len(listed) == 1
        assert (await one.call("GET", "sessions?all=true")).status_code == 403
        assert (await two.me()).status_code == 200


async def test_a_tenants_administrator_sees_and_ends_its_sessions_alone(edge: ControlEdge) -> None:
    admin_key = await key_of(edge, "three", scopes=["admin:*"], models=[])
    own, foreign = await key_of(edge, "three"), await key_of(edge, "four")
    async with edge.browser() as admin, edge.browser() as user, edge.browser() as stranger:
        await admin.sign_in_with_key(admin_key)
        theirs = (await user.sign_in_with_key(own)).json()["name"]
        other = (await stranger.sign_in_with_key(foreign)).json()["name"]
        listed = (await admin.call("GET", "sessions?all=true")).json()["sessions"]
        assert {each["tenant"] for each in listed} == {"tenants/three"}
        assert (await admin.call("DELETE", other)).status_code == 404
        ended = await admin.call("DELETE", theirs)
        assert (ended.status_code, "set-cookie" in ended.headers) == (200, False)
        assert (await user.me()).status_code == 401
        assert (await stranger.me()).status_code == 200


async def test_deactivation_ends_a_persons_sessions_and_keys_at_once(edge: ControlEdge) -> None:
    person = await make_person(edge, "acme", "gone@example.com", "owner")
    key = await own_key(edge, "acme", "gone@example.com")
    async with edge.browser() as browser, edge.browser() as provider, edge.admin() as admin:
        await browser.sign_in_with_key(key)
        await provider.sign_in(email="gone@example.com", subject="gone@example.com")
        for each in (browser, provider):
            assert (await each.me()).json()["person"] == person
        keys = await edge.rows(KEYS_TABLE)
        assert key[3:14] in keys
        await admin.people.DeactivatePerson(pb.DeactivatePersonRequest(name=person))
        assert key[3:14] not in await edge.rows(KEYS_TABLE)
        sessions = await edge.rows(SESSIONS_TABLE)
        for each in (browser, provider):
            assert digest_of(each) not in sessions
            assert (await each.me()).status_code == 401
        refused = await provider.sign_in(email="gone@example.com", subject="gone@example.com")
        assert refused.status_code == 403
        assert "deactivated" in refused.text
        assert (await browser.sign_in_with_key(key)).status_code == 401
        await admin.people.ActivatePerson(pb.ActivatePersonRequest(name=person))
        assert (
            await provider.sign_in(email="gone@example.com", subject="gone@example.com")
        ).is_redirect
        assert (await browser.sign_in_with_key(key)).status_code == 401, "keys ended for good"


async def test_a_new_role_holds_in_sessions_at_once(edge: ControlEdge) -> None:
    person = await make_person(edge, "acme", "rising@example.com", "viewer")
    async with edge.browser() as browser, edge.admin() as admin:
        await browser.sign_in(email="rising@example.com", subject="rising")
        assert (await browser.call("GET", "tenants/acme/members")).status_code == 403
        name = f"tenants/acme/members/{person.removeprefix('people/')}"
        changed = pb.Member(name=name, role=pb.Role.ROLE_ADMIN)
        await admin.members.UpdateMember(pb.UpdateMemberRequest(member=changed))
        assert (await browser.call("GET", "tenants/acme/members")).status_code == 200
        await admin.members.DeleteMember(pb.DeleteMemberRequest(name=name))
        assert (await browser.me()).status_code == 401


async def test_a_session_of_a_key_switches_to_no_other_tenant(edge: ControlEdge) -> None:
    person = await make_person(edge, "acme", "two@example.com", "member")
    key = await own_key(edge, "acme", "two@example.com")
    async with edge.browser() as browser, edge.admin() as admin:
        await admin.create_key("beta")
        await admin.members.CreateMember(
            pb.CreateMemberRequest(
                parent="tenants/beta", person=person, member=pb.Member(role=pb.Role.ROLE_OWNER)
            )
        )
        await browser.sign_in_with_key(key)
        answer = await browser.call(
            "POST", "sessions:switchTenant", json={"tenant": "tenants/beta"}
        )
        assert answer.status_code == 403
        shown = (await browser.call("GET", "people/me")).json()["memberships"]
        assert [each["name"].split("/")[1] for each in shown] == ["acme"]
