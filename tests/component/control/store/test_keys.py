"""Keys are kept by their digests, rotate with two, and end once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import FailedPrecondition, ResourceExists, ResourceNotFound
from headrace.internal.v1.access_pb2 import KeyRow, SessionRow
from headrace_control.base.records import Actor, Key, Limits
from headrace_control.store import PageOptions, Store
from headrace_control.store import keys as store_keys
from helpers.control_store import (
    ROOT,
    TestClock,
    digest,
    make_key,
    make_member,
    open_session,
    replay,
)


async def published(store: Store, key_id: str) -> KeyRow:
    return KeyRow.FromString((await replay(store))["keys"][key_id])


async def test_a_key_is_returned_as_it_was_created(store: Store, clock: TestClock) -> None:
    new = Key(
        "8dFanMt4iD4",
        "acme",
        display_name="of the batch job",
        scopes=("generate", "models:read"),
        models=("*",),
        networks=("10.0.0.0/8",),
        limits=Limits(concurrent_requests=3),
        labels={"team": "搜索"},
        redacted="hr_8dFanMt4iD4_...xxI",
        expire_time=clock.after(3600),
    )
    created = await store.keys.create(new, digest("secret"), make_tenant=True, by=ROOT)
    now = clock.now
    assert created == replace(new, digests=(digest("secret"),), create_time=now, update_time=now)
    assert await store.keys.get("acme", "8dFanMt4iD4") == created
    assert await store.keys.find("8dFanMt4iD4") == created
    row = await published(store, "8dFanMt4iD4")
    assert (row.tenant, list(row.scopes), list(row.models)) == ("acme", [*new.scopes], ["*"])
    assert row.digests[0].digest == digest("secret").digest
    assert (row.limits.concurrent_requests, row.expire_ms) == (3, 1_790_003_600_000)


async def test_a_key_makes_its_tenant_only_where_that_is_wanted(store: Store) -> None:
    with pytest.raises(ResourceNotFound, match="tenant acme not found"):
        await store.keys.create(Key("k1", "acme"), digest("k1"), by=ROOT)
    assert (await store.tenants.list()).items == ()
    await make_key(store, Key("k1", "acme"))
    assert list((await replay(store))["tenants"]) == ["acme"]
    with pytest.raises(ResourceExists, match="key k1"):
        await make_key(store, Key("k1", "other"))
    assert [each.tenant_id for each in (await store.tenants.list()).items] == ["acme"]


async def test_a_key_of_another_tenant_is_not_found(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    await make_key(store, Key("k2", "other"))
    with pytest.raises(ResourceNotFound, match="key k2 not found"):
        await store.keys.get("acme", "k2")
    with pytest.raises(ResourceNotFound, match="key k2 not found"):
        await store.keys.update("acme", "k2", lambda key: key, by=ROOT)
    with pytest.raises(ResourceNotFound, match="key k2 not found"):
        await store.keys.revoke("acme", "k2", by=ROOT)
    with pytest.raises(ResourceNotFound, match="key k2 not found"):
        await store.keys.rotate(
            "acme", "k2", digest("new"), redacted="", old_ends=clock.now, by=ROOT
        )
    assert (await store.keys.get("other", "k2")).revoke_time is None


async def test_a_revoked_key_has_no_row_and_no_digest(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme"))
    revoked = await store.keys.revoke("acme", "k1", by=ROOT)
    assert (revoked.revoke_time, revoked.digests) == (clock.now, ())
    assert (await replay(store))["keys"] == {}
    clock.advance(9)
    assert await store.keys.revoke("", "k1", by=ROOT) == revoked
    with pytest.raises(FailedPrecondition, match="revoked"):
        await store.keys.update("acme", "k1", lambda key: key, by=ROOT)


async def test_an_update_cannot_move_a_key_or_change_its_secret(store: Store) -> None:
    before = await make_key(store, Key("k1", "acme"))
    stolen = replace(before, tenant="other", person="p", digests=(digest("mine"),), key_id="k2")
    after = await store.keys.update("acme", "k1", lambda key: stolen, by=ROOT)
    assert after == before


async def test_a_rotated_key_has_two_secrets_until_the_old_one_ends(
    store: Store, clock: TestClock
) -> None:
    await make_key(store, Key("k1", "acme"))
    end = clock.after(600)
    rotated = await store.keys.rotate(
        "acme", "k1", digest("two"), redacted="hr_k1_...two", old_ends=end, by=ROOT
    )
    assert rotated.digests == (digest("two"), digest("k1", expire=end))
    assert rotated.redacted == "hr_k1_...two"
    row = await published(store, "k1")
    assert [each.expire_ms for each in row.digests] == [0, 1_790_000_600_000]
    # The third secret leaves the second until its end, and the first none.
    again = await store.keys.rotate(
        "acme", "k1", digest("three"), redacted="", old_ends=end, by=ROOT
    )
    assert again.digests == (digest("three"), digest("two", expire=end))
    at_once = await store.keys.rotate(
        "acme", "k1", digest("four"), redacted="", old_ends=clock.now, by=ROOT
    )
    assert at_once.digests == (digest("four"),)


async def test_an_expired_key_does_not_rotate(store: Store, clock: TestClock) -> None:
    await make_key(store, Key("k1", "acme", expire_time=clock.after(1)))
    clock.advance(1)
    with pytest.raises(FailedPrecondition, match="expired"):
        await store.keys.rotate("acme", "k1", digest("n"), redacted="", old_ends=clock.now, by=ROOT)


async def test_a_list_shows_the_newest_first_and_ended_ones_on_request(
    store: Store, clock: TestClock
) -> None:
    for number in range(5):
        await make_key(store, Key(f"k{number}", "acme" if number % 2 else "other"))
        clock.advance(1)
    await make_key(store, Key("short", "acme", expire_time=clock.after(1)))
    await store.keys.revoke("other", "k0", by=ROOT)
    clock.advance(2)

    async def ids(tenant: str, *, show_ended: bool = False) -> list[str]:
        found, token = list[str](), ""
        while True:
            page = await store.keys.list(
                tenant, show_ended=show_ended, options=PageOptions(2, token)
            )
            found += [key.key_id for key in page.items]
            if not (token := page.next_page_token):
                return found

    assert await ids("") == ["k4", "k3", "k2", "k1"]
    assert await ids("acme") == ["k3", "k1"]
    assert await ids("", show_ended=True) == ["short", "k4", "k3", "k2", "k1", "k0"]
    assert await store.keys.count() == 6


async def test_a_persons_key_may_do_no_more_than_its_person(store: Store) -> None:
    person = (await make_member(store, "acme", "ann@example.com")).person_id
    with pytest.raises(FailedPrecondition, match="no member"):
        await make_key(store, Key("k0", "other", person=person))
    await make_key(store, Key("k1", "acme", person=person, scopes=("generate", "models:read")))
    assert list((await published(store, "k1")).scopes) == ["generate", "models:read"]
    await store.members.update("acme", person, "viewer", by=ROOT)
    assert list((await published(store, "k1")).scopes) == ["models:read"]
    assert (await store.keys.find("k1")).scopes == ("generate", "models:read")


async def test_a_session_follows_the_key_that_it_was_opened_with(
    store: Store, clock: TestClock
) -> None:
    await make_key(store, Key("k1", "acme", scopes=("generate",), expire_time=clock.after(30)))
    session = await open_session(store, "acme", key_id="k1", expires=clock.after(60))
    assert (session.scopes, session.expire_time) == (("generate",), clock.after(30))
    narrow = replace(await store.keys.find("k1"), scopes=("models:read",), expire_time=None)
    await store.keys.update("acme", "k1", lambda key: narrow, by=ROOT)
    row = SessionRow.FromString((await replay(store))["sessions"][session.digest])
    assert (list(row.scopes), row.key_id) == (["models:read"], "k1")
    assert row.expire_ms == 1_790_000_060_000
    await store.keys.revoke("acme", "k1", by=ROOT)
    assert (await replay(store, {"sessions": {session.digest: b""}, "keys": {}}))["sessions"] == {}
    assert await store.sessions.try_by_digest(session.digest) is None


async def test_events_name_the_actor_and_never_the_secret(store: Store) -> None:
    await make_key(store, Key("k1", "acme", labels={"a": "b"}))
    await store.keys.revoke("acme", "k1", by=Actor("people/ann", "192.0.2.8"))
    events = (await store.audit.list(tenant="acme")).items
    assert [(e.action, e.resource, e.actor, e.client) for e in events] == [
        ("keys.revoke", "tenants/acme/keys/k1", "people/ann", "192.0.2.8"),
        ("keys.create", "tenants/acme/keys/k1", ROOT.name, ROOT.client),
        ("tenants.create", "tenants/acme", ROOT.name, ROOT.client),
    ]
    assert not any(digest("k1").digest.hex() in event.details for event in events)


async def test_a_person_and_a_tenant_have_a_bounded_number_of_keys(
    store: Store, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_keys, "MAX_TENANTS_KEYS", 4)
    monkeypatch.setattr(store_keys, "MAX_PERSONS_KEYS", 2)
    person = (await make_member(store, "acme", "ann@example.com")).person_id
    await make_key(store, Key("k1", "acme", person=person))
    await make_key(store, Key("k2", "acme", person=person, expire_time=clock.after(60)))
    with pytest.raises(FailedPrecondition, match=f"person {person} in tenant acme has 2 keys"):
        await make_key(store, Key("k3", "acme", person=person))
    await make_key(store, Key("k3", "acme"))
    await make_key(store, Key("k4", "acme"))
    with pytest.raises(FailedPrecondition, match="tenant acme has 4 keys"):
        await make_key(store, Key("k5", "acme"))
    await make_key(store, Key("k5", "other"))
    # Keys that have ended do not count.
    clock.advance(60)
    await make_key(store, Key("k6", "acme", person=person))
    await store.keys.revoke("acme", "k1", by=ROOT)
    await make_key(store, Key("k7", "acme", person=person))
