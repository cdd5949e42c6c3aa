"""Who of the proven people may sign in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.bus.subjects import SESSIONS_TABLE
from headrace.errors import PermissionDenied
from headrace_control.base.records import BY_INVITATION, Identity, Member, Session, Tenant
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock, make_member, replay

ANN = Identity("https://login.example.com", "s-1", "ann@example.com", "Ann")


async def invite(store: Store, clock: TestClock, tenant: str, email: str, role: str) -> None:
    if tenant not in [each.tenant_id for each in (await store.tenants.list()).items]:
        await store.tenants.create(Tenant(tenant), by=ROOT)
    token_hash = f"{tenant} {email}"
    await store.invitations.create(
        tenant, email, role, token_hash=token_hash, expires=clock.after(60), by=ROOT
    )


async def test_a_person_with_this_address_is_known_by_the_subject_from_then_on(
    store: Store,
) -> None:
    ann = await make_member(store, "acme", "Ann@Example.com")
    assert (await store.sign_ins.admit(ANN, None, by=ROOT))[0].person_id == ann.person_id
    moved = replace(ANN, email="ann@elsewhere.example")
    person, tenants = await store.sign_ins.admit(moved, None, by=ROOT)
    assert (person.person_id, person.email, tenants) == (
        ann.person_id,
        "Ann@Example.com",
        ("acme",),
    )


async def test_an_address_that_now_belongs_to_another_account_opens_nothing(store: Store) -> None:
    await make_member(store, "acme", ANN.email)
    await store.sign_ins.admit(ANN, None, by=ROOT)
    with pytest.raises(PermissionDenied, match="another account"):
        await store.sign_ins.admit(replace(ANN, subject="s-2"), None, by=ROOT)


@pytest.mark.parametrize("own", ["ann@strasse.example", "ann@k.example"])
async def test_addresses_that_only_unicode_folds_together_are_not_one(
    store: Store, own: str
) -> None:
    await make_member(store, "acme", own)
    other = own.replace("ss", "ß").replace("@k.", "@\N{KELVIN SIGN}.")
    with pytest.raises(PermissionDenied):
        await store.sign_ins.admit(replace(ANN, email=other), None, by=ROOT)
    assert (await store.people.try_by_subject(ANN.issuer, ANN.subject)) is None


async def test_a_stranger_gets_no_account(store: Store) -> None:
    with pytest.raises(PermissionDenied, match=r"ann@example\.com has no account here: ask an adm"):
        await store.sign_ins.admit(ANN, None, by=ROOT)
    assert (await store.people.list()).items == ()


async def test_a_stranger_without_a_verified_address_is_not_matched(store: Store) -> None:
    await make_member(store, "acme", ANN.email)
    with pytest.raises(PermissionDenied, match="without a verified e-mail address"):
        await store.sign_ins.admit(replace(ANN, email=""), None, by=ROOT)


async def test_an_invited_person_joins_by_signing_in(store: Store, clock: TestClock) -> None:
    await invite(store, clock, "acme", "Ann@example.com", "admin")
    person, tenants = await store.sign_ins.admit(ANN, None, by=ROOT)
    assert tenants == ("acme",)
    assert (await store.members.get("acme", person.person_id)).role == "admin"
    assert (await store.invitations.list("acme")).items == ()


async def test_an_expired_invitation_is_none(store: Store, clock: TestClock) -> None:
    await invite(store, clock, "acme", ANN.email, "admin")
    clock.advance(61)
    with pytest.raises(PermissionDenied):
        await store.sign_ins.admit(ANN, None, by=ROOT)


async def test_no_tenant_draws_members_of_another_to_itself(store: Store, clock: TestClock) -> None:
    await make_member(store, "zeta", ANN.email)
    await invite(store, clock, "acme", ANN.email, "admin")
    assert (await store.sign_ins.admit(ANN, None, by=ROOT))[1] == ("zeta",)


async def test_people_of_an_allowed_domain_become_members_once(store: Store) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    newcomers = Member("acme", "", "viewer")
    person, tenants = await store.sign_ins.admit(ANN, newcomers, by=ROOT)
    assert tenants == ("acme",)
    assert (await store.members.get("acme", person.person_id)).role == "viewer"
    await store.members.delete("acme", person.person_id, by=ROOT)
    with pytest.raises(PermissionDenied, match="member of no tenant"):
        await store.sign_ins.admit(ANN, newcomers, by=ROOT)


async def test_a_deactivated_person_stays_out_however_known(store: Store) -> None:
    ann = await make_member(store, "acme", ANN.email)
    await store.people.deactivate(ann.person_id, by=ROOT)
    for _ in range(2):
        with pytest.raises(PermissionDenied, match="deactivated"):
            await store.sign_ins.admit(ANN, Member("acme", "", "viewer"), by=ROOT)
    assert (await store.people.get(ann.person_id)).subject == ""


async def test_a_disabled_tenant_is_not_one_to_sign_in_to(store: Store) -> None:
    await make_member(store, "acme", ANN.email)
    await store.tenants.update("acme", lambda tenant: replace(tenant, disabled=True), by=ROOT)
    with pytest.raises(PermissionDenied, match="member of no tenant"):
        await store.sign_ins.admit(ANN, None, by=ROOT)


async def test_the_first_joined_tenant_comes_first(store: Store, clock: TestClock) -> None:
    ann = await make_member(store, "zeta", ANN.email)
    clock.advance(1)
    await store.tenants.create(Tenant("acme"), by=ROOT)
    await store.members.create("acme", ann.person_id, "owner", by=ROOT)
    assert (await store.sign_ins.admit(ANN, None, by=ROOT))[1] == ("zeta", "acme")


async def test_sessions_of_whoever_had_the_invitation_end_when_the_person_is_proven(
    store: Store, clock: TestClock
) -> None:
    ann = await make_member(store, "acme", ANN.email)
    opened = Session(
        "",
        "d" * 64,
        "acme",
        person=ann.person_id,
        opened_by=BY_INVITATION,
        expire_time=clock.after(60),
    )
    await store.sessions.create(opened, by=ROOT)
    tables = await replay(store)
    assert opened.digest in tables[SESSIONS_TABLE]
    await store.sign_ins.admit(ANN, None, by=ROOT)
    assert opened.digest not in (await replay(store, tables))[SESSIONS_TABLE]
