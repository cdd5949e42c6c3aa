"""People, their memberships and their sessions end together, and no owner is the last to go."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import (
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceNotFound,
)
from headrace.internal.v1.access_pb2 import SessionRow
from headrace_control.base.records import (
    BY_INVITATION,
    Invitation,
    Key,
    Person,
    Session,
    Tenant,
)
from headrace_control.store import PageOptions, Store, members
from headrace_control.store.database import transactions
from helpers.control_store import (
    ROOT,
    TestClock,
    make_key,
    make_member,
    open_session,
    replay,
)


async def test_people_are_found_by_address_whatever_its_case_and_by_subject(store: Store) -> None:
    ann = await store.people.create(
        Person("mine", email="Ann@Example.com", issuer="https://idp", subject="7"), by=ROOT
    )
    assert ann.person_id != "mine"
    assert await store.people.try_by_email("aNN@example.COM") == ann
    assert await store.people.try_by_subject("https://idp", "7") == ann
    assert await store.people.get(ann.person_id) == ann
    assert await store.people.try_by_subject("https://other", "7") is None
    assert await store.people.try_by_email("ben@example.com") is None
    with pytest.raises(ResourceExists, match="address"):
        await store.people.create(Person("", email="ANN@EXAMPLE.COM"), by=ROOT)
    with pytest.raises(ResourceExists, match="subject"):
        await store.people.create(Person("", issuer="https://idp", subject="7"), by=ROOT)


@pytest.mark.parametrize(
    "email", ["ann", "@b", "a@", "a b@c", "a@b@c", "a@b\n", "<a@b>", "a@b,c@d"]
)
async def test_what_is_no_address_is_refused(store: Store, email: str) -> None:
    with pytest.raises(InvalidRequest, match=r"name@example\.com"):
        await store.people.create(Person("", email=email), by=ROOT)


async def test_people_without_an_address_are_several(store: Store) -> None:
    first = await store.people.create(Person("", display_name="Ann"), by=ROOT)
    second = await store.people.create(Person("", display_name="Ben"), by=ROOT)
    page = await store.people.list(PageOptions(1))
    rest = await store.people.list(PageOptions(1, page.next_page_token))
    assert {*page.items, *rest.items} == {first, second}


async def test_a_subject_stays_for_good(store: Store) -> None:
    ann = await store.people.create(Person("", email="ann@example.com"), by=ROOT)
    ben = await store.people.create(Person("", email="ben@example.com"), by=ROOT)
    await store.people.link_subject(ann.person_id, "https://idp", "7", by=ROOT)
    await store.people.link_subject(ann.person_id, "https://idp", "7", by=ROOT)
    with pytest.raises(FailedPrecondition, match="another subject"):
        await store.people.link_subject(ann.person_id, "https://idp", "8", by=ROOT)
    with pytest.raises(ResourceExists):
        await store.people.link_subject(ben.person_id, "https://idp", "7", by=ROOT)


async def test_deactivation_ends_sessions_and_keys_of_every_tenant(
    store: Store, clock: TestClock
) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    ben = (await make_member(store, "acme", "ben@example.com")).person_id
    await store.tenants.create(Tenant("other"), by=ROOT)
    await store.members.create("other", ann, "owner", by=ROOT)
    for number, (tenant, person) in enumerate([("acme", ann), ("other", ann), ("acme", ben)]):
        await make_key(store, Key(f"k{number}", tenant, person=person))
        await open_session(store, tenant, person=person, expires=clock.after(60))
    assert len((await replay(store))["sessions"]) == 3
    deactivated = await store.people.deactivate(ann, by=ROOT)
    assert deactivated.deactivated
    tables = await store.outbox.all_rows()
    assert list(tables["keys"]) == ["k2"]
    assert [SessionRow.FromString(row).person for row in tables["sessions"].values()] == [ben]
    assert await store.people.deactivate(ann, by=ROOT) == deactivated
    with pytest.raises(FailedPrecondition, match="deactivated"):
        await open_session(store, "acme", person=ann, expires=clock.after(60))
    assert not (await store.people.activate(ann, by=ROOT)).deactivated
    assert list((await store.outbox.all_rows())["keys"]) == ["k2"]


async def test_a_role_reaches_the_rows_of_open_sessions(store: Store, clock: TestClock) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    session = await open_session(store, "acme", person=ann, expires=clock.after(60))
    assert (session.role, session.models) == ("member", ("*",))
    await replay(store)
    await store.members.update("acme", ann, "admin", by=ROOT)
    row = SessionRow.FromString((await replay(store))["sessions"][session.digest])
    assert row.role == "admin"
    assert "admin:*" in (await store.sessions.get(session.session_id)).scopes


async def test_a_former_members_sessions_and_keys_of_this_tenant_end(
    store: Store, clock: TestClock
) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    await store.tenants.create(Tenant("other"), by=ROOT)
    await store.members.create("other", ann, "member", by=ROOT)
    for tenant in ("acme", "other"):
        await make_key(store, Key(f"of-{tenant}", tenant, person=ann))
        await open_session(store, tenant, person=ann, expires=clock.after(60))
    await store.members.delete("acme", ann, by=ROOT)
    tables = await replay(store)
    assert list(tables["keys"]) == ["of-other"]
    assert [SessionRow.FromString(r).tenant for r in tables["sessions"].values()] == ["other"]
    assert [each.tenant for each in await store.people.memberships(ann)] == ["other"]


async def test_the_last_owner_who_can_sign_in_stays(store: Store) -> None:
    ann = (await make_member(store, "acme", "ann@example.com", "owner")).person_id
    ben = (await make_member(store, "acme", "ben@example.com", "admin")).person_id
    for change in (
        lambda: store.members.delete("acme", ann, by=ROOT),
        lambda: store.members.update("acme", ann, "admin", by=ROOT),
    ):
        with pytest.raises(FailedPrecondition, match="last owner"):
            await change()
    await store.members.update("acme", ben, "owner", by=ROOT)
    await store.people.deactivate(ben, by=ROOT)
    with pytest.raises(FailedPrecondition, match="last owner"):
        await store.members.delete("acme", ann, by=ROOT)
    await store.people.activate(ben, by=ROOT)
    await store.members.delete("acme", ann, by=ROOT)
    assert [each.person for each in (await store.members.list("acme")).items] == [ben]


async def test_memberships_are_of_people_and_tenants_that_there_are(store: Store) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    with pytest.raises(ResourceExists):
        await store.members.create("acme", ann, "owner", by=ROOT)
    with pytest.raises(ResourceNotFound, match=r"tenant .* not found"):
        await store.members.create("other", ann, "member", by=ROOT)
    with pytest.raises(ResourceNotFound, match=r"person .* not found"):
        await store.members.create("acme", "nobody", "member", by=ROOT)
    with pytest.raises(InvalidRequest, match="viewer, member, admin, owner"):
        await store.members.create("acme", ann, "root", by=ROOT)
    member = await store.members.get("acme", ann)
    assert (member.email, member.role) == ("ann@example.com", "member")


async def invite(
    store: Store, clock: TestClock, email: str, role: str = "member", token: str = "t"
) -> Invitation:
    return await store.invitations.create(
        "acme", email, role, token_hash=token, expires=clock.after(600), by=ROOT
    )


async def test_a_tenant_has_a_bounded_number_of_invitations(
    store: Store, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_INVITATIONS", 2)
    await store.tenants.create(Tenant("acme"), by=ROOT)
    first = await invite(store, clock, "a@example.com", token="1")
    await invite(store, clock, "b@example.com", token="2")
    with pytest.raises(FailedPrecondition, match="acme has 2 invitations"):
        await invite(store, clock, "c@example.com", token="3")
    await store.invitations.delete("acme", first.invitation_id, by=ROOT)
    await invite(store, clock, "c@example.com", token="3")


async def test_an_invitation_is_accepted_once(store: Store, clock: TestClock) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    invitation = await invite(store, clock, "ann@example.com")
    assert (await store.invitations.list("acme")).items == (invitation,)
    person, member = await store.invitations.accept("t", display_name="Ann", by=ROOT)
    assert (person.email, person.display_name) == ("ann@example.com", "Ann")
    assert (member.tenant, member.person, member.role) == ("acme", person.person_id, "member")
    for token in ("t", "other"):
        with pytest.raises(ResourceNotFound, match="used or expired"):
            await store.invitations.accept(token, by=ROOT)
    assert (await store.invitations.list("acme")).items == ()


async def test_an_expired_or_deleted_invitation_is_worth_nothing(
    store: Store, clock: TestClock
) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    invitation = await invite(store, clock, "ann@example.com")
    await store.invitations.delete("acme", invitation.invitation_id, by=ROOT)
    with pytest.raises(ResourceNotFound):
        await store.invitations.accept("t", by=ROOT)
    with pytest.raises(ResourceNotFound):
        await store.invitations.delete("acme", invitation.invitation_id, by=ROOT)
    await invite(store, clock, "ann@example.com")
    clock.advance(600)
    with pytest.raises(ResourceNotFound):
        await store.invitations.accept("t", by=ROOT)
    assert (await store.people.list()).items == ()


async def test_whoever_invites_cannot_become_the_person_invited(
    store: Store, clock: TestClock
) -> None:
    """The token is shown to the inviter; a person who is somebody already has to be signed in."""
    victim = await make_member(store, "headrace", "root@example.com", "owner")
    await store.tenants.create(Tenant("acme"), by=ROOT)
    await invite(store, clock, "ROOT@example.com")
    for signed_in_as in ("", "somebody"):
        with pytest.raises(PermissionDenied, match="sign in"):
            await store.invitations.accept("t", signed_in_as=signed_in_as, by=ROOT)
    person, member = await store.invitations.accept("t", signed_in_as=victim.person_id, by=ROOT)
    assert (person, member.tenant) == (victim, "acme")


async def test_a_person_whom_a_provider_knows_or_who_is_deactivated_is_not_taken_over(
    store: Store, clock: TestClock
) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    known = Person("", email="ann@example.com", issuer="https://idp", subject="7")
    await store.people.create(known, by=ROOT)
    ben = await store.people.create(Person("", email="ben@example.com"), by=ROOT)
    await store.people.deactivate(ben.person_id, by=ROOT)
    await invite(store, clock, "ann@example.com", token="a")
    await invite(store, clock, "ben@example.com", token="b")
    for token in "ab":
        with pytest.raises(PermissionDenied):
            await store.invitations.accept(token, by=ROOT)
    with pytest.raises(PermissionDenied):
        await store.invitations.accept("b", signed_in_as=ben.person_id, by=ROOT)


async def test_an_invitation_raises_a_members_role_and_never_lowers_it(
    store: Store, clock: TestClock
) -> None:
    ann = (await make_member(store, "acme", "ann@example.com", "member")).person_id
    for token, role, expected in (("1", "admin", "admin"), ("2", "viewer", "admin")):
        await invite(store, clock, "ann@example.com", role, token)
        _, member = await store.invitations.accept(token, signed_in_as=ann, by=ROOT)
        assert member.role == expected


async def test_only_a_session_by_the_provider_switches_tenant(
    store: Store, clock: TestClock
) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    await store.tenants.create(Tenant("other"), by=ROOT)
    await store.tenants.create(Tenant("third"), by=ROOT)
    await store.members.create("other", ann, "viewer", by=ROOT)
    session = await open_session(store, "acme", person=ann, expires=clock.after(60))
    switched = await store.sessions.switch_tenant(session.session_id, "other", by=ROOT)
    assert (switched.tenant, switched.role) == ("other", "viewer")
    row = SessionRow.FromString((await replay(store))["sessions"][session.digest])
    assert (row.tenant, row.role) == ("other", "viewer")
    for tenant in ("third", "none"):
        with pytest.raises(ResourceNotFound, match=f"tenant {tenant} not found"):
            await store.sessions.switch_tenant(session.session_id, tenant, by=ROOT)
    invited = await store.sessions.create(
        Session(*("", "d" * 64, "acme", ann), opened_by=BY_INVITATION, expire_time=clock.after(60)),
        by=ROOT,
    )
    with pytest.raises(PermissionDenied, match="provider"):
        await store.sessions.switch_tenant(invited.session_id, "other", by=ROOT)


async def test_sessions_end_by_sign_out_and_by_time(store: Store, clock: TestClock) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    short = await open_session(store, "acme", person=ann, expires=clock.after(10))
    long = await open_session(store, "acme", person=ann, expires=clock.after(60))
    assert await store.sessions.try_by_digest(short.digest) == short
    assert (await store.people.get(ann)).last_sign_in_time == clock.now
    clock.advance(10)
    assert await store.sessions.try_by_digest(short.digest) is None
    assert (await store.sessions.list(person=ann)).items == (long,)
    assert (await store.sessions.list(tenants=["other"])).items == ()
    assert await store.sessions.delete_expired() == 1
    assert list((await replay(store))["sessions"]) == [long.digest]
    await store.sessions.delete(long.session_id, by=ROOT)
    await store.sessions.delete(long.session_id, by=ROOT)
    assert (await store.outbox.all_rows())["sessions"] == {}
    with pytest.raises(ResourceNotFound):
        await store.sessions.get(long.session_id)


async def test_a_session_is_of_somebody_who_may_have_one(store: Store, clock: TestClock) -> None:
    ann = (await make_member(store, "acme", "ann@example.com")).person_id
    await make_key(store, Key("k1", "other"))
    await make_key(store, Key("k2", "acme", expire_time=clock.now))
    for tenant, person, key_id in (
        *(("other", ann, ""), ("acme", "", ""), ("acme", "", "k1")),
        *(("other", "", "none"), ("acme", "", "k2"), ("acme", ann, "k2")),
    ):
        with pytest.raises(FailedPrecondition):
            await open_session(store, tenant, person=person, key_id=key_id, expires=clock.after(60))


async def test_who_guesses_tokens_of_invitations_keeps_no_writer_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    begin = transactions.begin_change

    async def noted(*arguments: Any) -> transactions.Change:
        begun.append("a change")
        return await begin(*arguments)

    monkeypatch.setattr(transactions, "begin_change", noted)
    with pytest.raises(ResourceNotFound, match="invitation not found"):
        await store.invitations.accept("guessed", by=ROOT)
    assert begun == []
    await store.tenants.create(Tenant("acme"), by=ROOT)
    assert begun == ["a change"]
