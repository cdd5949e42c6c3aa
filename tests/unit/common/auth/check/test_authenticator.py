"""Who a caller is, by key or session, and what this caller may."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from secrets import token_urlsafe

import pytest

from headrace.auth.check.authenticator import (
    Authenticator,
    Credentials,
    Identified,
    OutsideNetworks,
    Rejected,
    authorize,
)
from headrace.auth.check.edge import Client
from headrace.auth.keys import key_id_of, new_key
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import ADMIN, GENERATE, MESH_TENANT, MODELS_READ, PUBLIC, SIGNED_IN
from headrace.auth.tables import Key, Session, Tenant
from headrace.errors import PermissionDenied
from headrace.internal.v1.access_pb2 import KeyRow, SessionRow, TenantRow
from headrace.v1.access_pb2 import Access
from headrace.v1.common_pb2 import Priority
from helpers.access_tables import PEPPERS, cookie_digest, key_row, session_row

NOW_MS = 1_000_000
KEY = new_key()
COOKIE, OTHER_COOKIE = "Zm9v" * 10 + "YmF", "YmFy" * 10 + "Zm9"
"""Not random: test processes must have equal names of tests."""
HERE = Client("192.0.2.7", same_origin=True)


@dataclass
class Rows:
    """The tables as data."""

    keys: list[KeyRow] = field(default_factory=list)
    tenants: list[TenantRow] = field(default_factory=lambda: [TenantRow(tenant="a")])
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def key(self, key_id: str) -> Key | None:
        found = (each for each in self.keys if each.key_id == key_id)
        return next((Key.parse(each.SerializeToString()) for each in found), None)

    def tenant(self, name: str) -> Tenant | None:
        found = (each for each in self.tenants if each.tenant == name)
        return next((Tenant.parse(each.SerializeToString()) for each in found), None)

    def session(self, digest: str) -> Session | None:
        row = self.sessions.get(digest)
        return None if row is None else Session.parse(row.SerializeToString())

    def was_revoked(self, key_id: str) -> bool:
        return key_id in self.revoked


def identify(rows: Rows, client: Client = HERE, /, **headers: str) -> Identified:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    credentials = Credentials.of(given, same_origin=client.same_origin)
    return Authenticator(rows).identify(credentials, client, PEPPERS, NOW_MS)


def reason(rows: Rows, client: Client = HERE, /, **headers: str) -> str:
    with pytest.raises(Rejected) as rejected:
        identify(rows, client, **headers)
    return rejected.value.reason


def cookie(value: str = COOKIE) -> str:
    return f"theme=dark; headrace_session={value}; x=1"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x_api_key": KEY},
        {"authorization": f"Bearer {KEY}", "x_api_key": KEY},
        {"authorization": f"Bearer {KEY}", "cookie": cookie()},
    ],
)
def test_a_key_may_come_in_either_header(headers: dict[str, str]) -> None:
    rows = Rows([key_row(KEY, "a", scopes=[GENERATE], models=["m"], person="ann")])
    caller = identify(rows, HERE, **headers).caller
    assert (caller.tenant, caller.key_id, caller.person) == ("a", key_id_of(KEY), "ann")
    assert (set(caller.scopes), set(caller.models)) == ({GENERATE}, {"m"})
    assert (caller.client, caller.anonymous) == ("192.0.2.7", False)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ""),
        ({"authorization": "Bearer "}, ""),
        ({"authorization": f"Bearer {KEY[:-1]}x"}, "malformed"),
        ({"authorization": f"Basic {KEY}"}, "malformed"),
        ({"authorization": KEY}, "malformed"),
        ({"authorization": "Bearer sk-proj-123"}, "malformed"),
        ({"authorization": f"Bearer {KEY},Bearer {KEY}"}, "malformed"),
        ({"authorization": f"Bearer {KEY}", "x_api_key": new_key()}, "malformed"),
        ({"authorization": "Bearer", "x_api_key": KEY}, "malformed"),
        ({"x_api_key": new_key()}, "unknown"),
        ({"x_api_key": new_key(key_id_of(KEY) or "")}, "unknown"),
        ({"authorization": f"Bearer {new_key()}", "cookie": cookie()}, "unknown"),
    ],
)
def test_what_is_no_valid_key_is_rejected(headers: dict[str, str], expected: str) -> None:
    rows = Rows(
        [key_row(KEY, "a")], sessions={cookie_digest(COOKIE): session_row("a", role="owner")}
    )
    assert reason(rows, HERE, **headers) == expected


def test_every_refusal_is_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[int] = []
    digest = hmac.digest

    def counted(key: bytes, message: bytes, name: str) -> bytes:
        work[-1] += 1
        return digest(key, message, name)

    once, rotated = key_row(KEY, "a"), key_row(KEY, "a")
    rotated.digests.append(PEPPERS.digest(new_key()))
    wrong = new_key(key_id_of(KEY) or "")
    monkeypatch.setattr(hmac, "digest", counted)
    for rows in (Rows(), Rows([once]), Rows([rotated])):
        work.append(0)
        assert reason(rows, x_api_key=wrong) == "unknown"
    assert len(set(work)) == 1


def test_a_key_ends_when_it_expires() -> None:
    assert identify(Rows([key_row(KEY, "a", expire_ms=NOW_MS + 1)]), x_api_key=KEY)
    assert reason(Rows([key_row(KEY, "a", expire_ms=NOW_MS)]), x_api_key=KEY) == "expired"


def test_a_revoked_key_is_reported_as_such() -> None:
    assert reason(Rows(revoked={key_id_of(KEY) or ""}), x_api_key=KEY) == "revoked"


def test_nothing_may_be_called_for_a_tenant_that_is_disabled_or_unknown() -> None:
    row = key_row(KEY, "a")
    for tenants in ([], [TenantRow(tenant="a", disabled=True)]):
        assert reason(Rows([row], tenants=tenants), x_api_key=KEY) == "revoked"
        sessions = {cookie_digest(COOKIE): session_row("a", role="owner")}
        assert reason(Rows(tenants=tenants, sessions=sessions), cookie=cookie()) == "session"


@pytest.mark.parametrize("listed_by", ["tenant", "key"])
def test_a_key_may_be_used_from_the_networks_of_tenant_and_key_only(listed_by: str) -> None:
    of_key = ["192.0.2.0/24"] if listed_by == "key" else []
    of_tenant = ["192.0.2.0/24"] if listed_by == "tenant" else []
    rows = Rows([key_row(KEY, "a", networks=of_key)], [TenantRow(tenant="a", networks=of_tenant)])
    assert identify(rows, Client("192.0.2.200"), x_api_key=KEY)
    for address in ("198.51.100.1", ""):
        with pytest.raises(OutsideNetworks) as outside:
            identify(rows, Client(address), x_api_key=KEY)
        assert outside.value.reason == "network"
        assert (address or "an unknown address") in outside.value.error.message


def test_the_bounds_of_priorities_are_the_tenants() -> None:
    standard, bulk = Priority.PRIORITY_STANDARD, Priority.PRIORITY_BULK
    row = TenantRow(tenant="a", default_priority=bulk, highest_priority=standard)
    caller = identify(Rows([key_row(KEY, "a")], [row]), x_api_key=KEY).caller
    assert (caller.default_priority, caller.highest_priority) == (bulk, standard)
    caller = identify(Rows([key_row(KEY, "a")]), x_api_key=KEY).caller
    assert caller.default_priority == standard
    assert caller.highest_priority == Priority.PRIORITY_INTERACTIVE


def test_a_caller_is_of_the_tenant_that_has_the_name_now() -> None:
    session = {cookie_digest(COOKIE): session_row("a", role="viewer")}
    rows = Rows([key_row(KEY, "a")], [TenantRow(tenant="a", create_ms=7)], session)
    for sent in ({"x_api_key": KEY}, {"cookie": cookie()}):
        assert identify(rows, **sent).caller.tenant_create_ms == 7


def test_a_digest_of_an_older_pepper_is_named_so_that_it_can_be_renewed() -> None:
    rows = Rows([key_row(KEY, "a")])
    rotated = Peppers({"two": b"2" * 32, "one": b"p" * 32})
    found = Authenticator(rows).identify(Credentials(key=KEY), HERE, rotated, NOW_MS)
    assert found.outdated == PEPPERS.digest(KEY)
    assert identify(rows, x_api_key=KEY).outdated is None


@pytest.mark.parametrize(
    "sent", [cookie(), f"headrace_session={COOKIE}", f"a=b,headrace_session={COOKIE}"]
)
def test_a_session_is_of_the_person_and_the_role(sent: str) -> None:
    rows = Rows(sessions={cookie_digest(COOKIE): session_row("a", role="viewer")})
    caller = identify(rows, cookie=sent).caller
    assert (caller.tenant, caller.person, caller.role) == ("a", "ann", "viewer")
    assert caller.scopes == {MODELS_READ, "usage:read"}
    assert caller.may_use("any")


def test_a_cookie_counts_from_a_page_of_the_same_origin_only() -> None:
    rows = Rows(sessions={cookie_digest(COOKIE): session_row("a", role="owner")})
    assert reason(rows, Client("192.0.2.7", same_origin=False), cookie=cookie()) == ""


@pytest.mark.parametrize(
    "sent",
    [
        cookie(OTHER_COOKIE),
        cookie(COOKIE[:-1]),
        cookie(f"{COOKIE}x"),
        cookie(cookie_digest(COOKIE)),
        f"{cookie()}; headrace_session={token_urlsafe(32)}",
    ],
)
def test_a_cookie_of_no_session_is_rejected(sent: str) -> None:
    rows = Rows(sessions={cookie_digest(COOKIE): session_row("a", role="owner")})
    assert reason(rows, cookie=sent) == "session"


def test_a_cookie_of_a_like_name_is_none() -> None:
    rows = Rows(sessions={cookie_digest(COOKIE): session_row("a", role="owner")})
    assert reason(rows, cookie=f"xheadrace_session={COOKIE}") == ""


def test_a_session_ends_when_it_expires() -> None:
    row = session_row("a", role="owner", expire_ms=NOW_MS)
    assert reason(Rows(sessions={cookie_digest(COOKIE): row}), cookie=cookie()) == "session"


def test_a_role_that_is_unknown_may_do_nothing() -> None:
    rows = Rows(sessions={cookie_digest(COOKIE): session_row("a", role="root")})
    assert identify(rows, cookie=cookie()).caller.scopes == frozenset()


def test_a_session_that_was_opened_with_a_key_has_what_the_key_has() -> None:
    key_id = key_id_of(KEY) or ""
    sessions = {cookie_digest(COOKIE): session_row("a", key_id=key_id)}
    rows = Rows([key_row(KEY, "a", scopes=[GENERATE], models=["m"])], sessions=sessions)
    caller = identify(rows, cookie=cookie()).caller
    assert (set(caller.scopes), set(caller.models)) == ({GENERATE}, {"m"})
    assert caller.key_id == key_id


@pytest.mark.parametrize(
    "keys",
    [[], [key_row(KEY, "a", expire_ms=NOW_MS)], [key_row(KEY, "b")]],
    ids=["revoked", "expired", "of another tenant"],
)
def test_a_session_that_was_opened_with_a_key_ends_with_the_key(keys: list[KeyRow]) -> None:
    sessions = {cookie_digest(COOKIE): session_row("a", key_id=key_id_of(KEY) or "")}
    assert reason(Rows(keys, sessions=sessions), cookie=cookie()) == "session"


@pytest.mark.parametrize(
    ("scopes", "tenant", "access", "is_allowed"),
    [
        ([GENERATE], "a", Access(scope=GENERATE), True),
        ([GENERATE], "a", Access(scope=MODELS_READ), False),
        ([ADMIN], MESH_TENANT, Access(scope=GENERATE), False),
        ([], "a", Access(scope=SIGNED_IN), True),
        ([], "a", Access(scope=PUBLIC), True),
        ([], "a", Access(scope=""), False),
        ([ADMIN], "a", Access(scope=ADMIN), True),
        ([ADMIN], "a", Access(scope=ADMIN, operator_only=True), False),
        ([ADMIN], MESH_TENANT, Access(scope=ADMIN, operator_only=True), True),
        ([MODELS_READ], MESH_TENANT, Access(scope=MODELS_READ, operator_only=True), False),
    ],
)
def test_a_method_is_for_callers_with_its_scope(
    scopes: list[str], tenant: str, access: Access, is_allowed: bool
) -> None:
    rows = Rows([key_row(KEY, tenant, scopes=scopes)], [TenantRow(tenant=tenant)])
    caller = identify(rows, x_api_key=KEY).caller
    if is_allowed:
        authorize(caller, access)
        return
    with pytest.raises(PermissionDenied) as denied:
        authorize(caller, access)
    assert access.operator_only or f"needs the scope {access.scope}" in denied.value.message
