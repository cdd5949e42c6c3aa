"""Sign-in as browsers do it, through a real Envoy, at a real provider."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from headrace.admin.v1 import people_pb2 as pb
from headrace.bus.subjects import SESSIONS_TABLE
from headrace.internal.v1.access_pb2 import SessionRow
from helpers.control_edge import SESSION, SIGN_IN, ControlEdge, control_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    folder = tmp_path_factory.mktemp("edge")
    async with control_edge(
        folder, oidc_allowed_domains='["corp.example"]', oidc_default_tenant="corp"
    ) as running:
        async with running.admin() as admin:
            for tenant in ("acme", "corp", "zeta"):
                await admin.create_key(tenant)
        yield running


async def make_member(edge: ControlEdge, email: str, tenant: str = "acme", role: int = 2) -> str:
    """Return people/ID."""
    async with edge.admin() as admin:
        new = pb.CreatePersonRequest(person=pb.Person(email=email))
        person: pb.Person = await admin.people.CreatePerson(new)
        await admin.members.CreateMember(
            pb.CreateMemberRequest(
                parent=f"tenants/{tenant}",
                person=person.name,
                member=pb.Member(role=pb.Role.ValueType(role)),
            )
        )
    return person.name


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    found = answer.headers.get_list("set-cookie")
    return {each.partition("=")[0]: each.partition("=")[2] for each in found}


async def test_a_person_signs_in_and_comes_back_to_where_they_were(edge: ControlEdge) -> None:
    person = await make_member(edge, "ann@example.com")
    async with edge.browser() as browser:
        answer = await browser.sign_in(email="Ann@example.com", subject="ann")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/chat")
        cookies = cookies_of(answer)
        value, _, attributes = cookies[SESSION].partition("; ")
        assert len(value) == 43
        assert attributes == "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax"
        assert cookies[SIGN_IN].startswith("; Path=/v2/admin/oidc; Max-Age=0")
        assert answer.headers["cache-control"] == "no-store"
        me = (await browser.me()).json()
        assert (me["person"], me["tenant"], me["role"]) == (person, "tenants/acme", "member")
        row = SessionRow.FromString(
            (await edge.rows(SESSIONS_TABLE))[sha256(value.encode()).hexdigest()]
        )
        assert (f"people/{row.person}", row.tenant, row.role) == (person, "acme", "member")
        shown = (await browser.call("GET", "people/me")).json()
        assert (shown["email"], len(shown["memberships"])) == ("ann@example.com", 1)


async def test_the_provider_gets_the_redirect_of_the_settings_whatever_the_host_header(
    edge: ControlEdge,
) -> None:
    async with edge.browser() as browser:
        answer = await browser.http.get(
            "/v2/admin/oidc/login", headers={"host": "evil.example", "accept": "text/html"}
        )
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert query["redirect_uri"] == [f"{edge.url}/v2/admin/oidc/callback"]
        assert query["code_challenge_method"] == ["S256"]
        assert query["scope"] == ["openid email profile"]


@pytest.mark.parametrize(
    "return_to", ["//evil.example/", "https://evil.example", "/\\evil.example"]
)
async def test_a_sign_in_leads_to_no_other_site(edge: ControlEdge, return_to: str) -> None:
    async with edge.browser() as browser:
        answer = await browser.begin(return_to)
        assert answer.status_code == 400
        assert "return_to is" in answer.text
        assert "location" not in answer.headers


async def test_another_browser_cannot_finish_what_one_has_begun(edge: ControlEdge) -> None:
    await make_member(edge, "bob@example.com")
    async with edge.browser() as bob, edge.browser() as victim, edge.browser() as stranger:
        callback = await bob.consent(email="bob@example.com", subject="bob")
        await victim.begin()
        for other in (victim, stranger):
            answer = await other.visit(callback)
            assert (answer.status_code, other.session) == (400, None)
            assert "begun in another browser" in answer.text
        assert (await bob.visit(callback)).status_code == 303
        assert (await bob.visit(callback)).status_code == 400, "a callback counts once"


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": int(time.time()) - 3600},
    ],
    ids=lambda lies: next(iter(lies)),
)
async def test_a_token_of_another_sign_in_opens_nothing(
    edge: ControlEdge, lies: dict[str, Any]
) -> None:
    async with edge.browser() as browser:
        edge.login.lies = lies
        try:
            answer = await browser.sign_in(email="ann@corp.example", subject="liar")
        finally:
            edge.login.lies = {}
        assert (answer.status_code, browser.session) == (403, None)
        assert "does not prove who you are" in answer.text
    assert (await edge.audited("sessions.refuse"))[0].details.startswith('{"why": "')


async def test_a_code_that_the_provider_does_not_know_opens_nothing(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        callback = await browser.consent(email="ann@corp.example")
        forged = callback.replace("code=", "code=x")
        assert (await browser.visit(forged)).status_code == 403
        assert browser.session is None


async def test_a_provider_that_claims_another_issuer_is_refused(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        callback = await browser.consent(email="ann@corp.example")
        mixed_up = callback.replace("iss=http", "iss=https")
        assert (await browser.visit(mixed_up)).status_code == 403


async def test_what_the_provider_says_is_shown_as_text(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        state = parse_qs(urlsplit(await browser.consent()).query)["state"][0]
        answer = await browser.visit(
            f"/v2/admin/oidc/callback?state={state}&error=access_denied"
            "&error_description=<script>alert(1)</script>"
        )
        assert answer.status_code == 403
        assert "access_denied &lt;script&gt;" in answer.text
        assert "<script>" not in answer.text
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_stranger_is_told_whom_to_ask_and_gets_no_account(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        answer = await browser.sign_in(email="eve@elsewhere.example", subject="eve")
        assert (answer.status_code, browser.session) == (403, None)
        assert "eve@elsewhere.example has no account here: ask an administrator" in answer.text
    event = (await edge.audited("sessions.refuse"))[0]
    assert "eve@elsewhere.example" in event.details
    assert (event.actor, event.client) == ("anonymous", "127.0.0.1")
    async with edge.admin() as admin:
        found = await admin.people.ListPeople(pb.ListPeopleRequest(page_size=1000))
        assert "eve@elsewhere.example" not in [each.email for each in found.people]


async def test_an_unverified_address_is_nobodys(edge: ControlEdge) -> None:
    await make_member(edge, "carl@example.com")
    async with edge.browser() as browser:
        answer = await browser.sign_in(
            email="carl@example.com", email_verified=False, subject="mallory"
        )
        assert (answer.status_code, browser.session) == (403, None)


async def test_people_of_an_allowed_domain_get_an_account(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        assert (await browser.sign_in(email="new@corp.example", subject="n")).status_code == 303
        me = (await browser.me()).json()
        assert (me["tenant"], me["role"]) == ("tenants/corp", "viewer")


async def test_errors_are_those_of_the_api_where_no_page_is_asked_for(edge: ControlEdge) -> None:
    async with edge.browser() as browser:
        answer = await browser.http.get("/v2/admin/oidc/callback?state=x&code=y")
        assert answer.status_code == 400
        assert answer.json()["details"][0]["reason"] == "INVALID_REQUEST"


async def test_a_provider_that_is_down_is_said_in_words_and_keys_still_sign_in(
    edge: ControlEdge,
) -> None:
    async with edge.browser() as browser:
        callback = await browser.consent(email="ann@corp.example")
        edge.login.down = True
        try:
            answer = await browser.visit(callback)
            assert (answer.status_code, browser.session) == (503, None)
            assert "or sign in with a key" in answer.text
            assert (await browser.sign_in_with_key(edge.admin_key)).status_code == 200
        finally:
            edge.login.down = False


async def test_a_person_with_several_tenants_switches_between_them(edge: ControlEdge) -> None:
    person = await make_member(edge, "dora@example.com", "zeta")
    async with edge.admin() as admin:
        await admin.members.CreateMember(
            pb.CreateMemberRequest(
                parent="tenants/acme", person=person, member=pb.Member(role=pb.Role.ROLE_ADMIN)
            )
        )
    async with edge.browser() as browser:
        await browser.sign_in(email="dora@example.com", subject="dora")
        assert (await browser.me()).json()["tenant"] == "tenants/zeta"
        to = {"tenant": "tenants/acme"}
        switched = await browser.call("POST", "sessions:switchTenant", json=to)
        assert (switched.json()["tenant"], switched.json()["role"]) == ("tenants/acme", "admin")
        assert (await browser.me()).json()["role"] == "admin"
        for foreign in ("tenants/corp", "tenants/nowhere"):
            answer = await browser.call("POST", "sessions:switchTenant", json={"tenant": foreign})
            assert answer.status_code == 404


async def test_no_secret_of_a_sign_in_is_in_the_logs(edge: ControlEdge) -> None:
    await make_member(edge, "fred@example.com")
    async with edge.browser() as browser:
        callback = await browser.consent(email="fred@example.com", subject="fred")
        sign_in = browser.http.cookies.get(SIGN_IN, path="/v2/admin/oidc") or "-"
        await browser.visit(callback)
        query = {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}
        secrets = [sign_in, browser.session or "-", query["code"], query["state"]]
        logs = [edge.log, *edge.log.parent.joinpath("logs").iterdir()]
        for log in logs:
            for secret in secrets:
                assert secret not in log.read_text(), log
