"""Members and invitations: what administrators of a tenant, owners and others may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from headrace.admin.v1 import people_pb2 as pb
from headrace.errors import (
    FailedPrecondition,
    HeadraceError,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceNotFound,
)
from helpers.control_api import ControlApi, refused
from helpers.control_edge import Browser, ControlEdge, control_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")
VIEWER, MEMBER, ADMIN, OWNER = range(1, 5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    async with control_edge(tmp_path_factory.mktemp("edge")) as running:
        yield running


async def make_person(edge: ControlEdge, email: str, tenant: str = "", role: int = OWNER) -> str:
    """Return people/ID."""
    async with edge.admin() as admin:
        new = pb.CreatePersonRequest(person=pb.Person(email=email))
        person: pb.Person = await admin.people.CreatePerson(new)
        if tenant:
            await admin.create_key(tenant)
            member = pb.Member(role=pb.Role.ValueType(role))
            await admin.members.CreateMember(
                pb.CreateMemberRequest(
                    parent=f"tenants/{tenant}", person=person.name, member=member
                )
            )
    return person.name


@asynccontextmanager
async def signed_in(edge: ControlEdge, email: str) -> AsyncIterator[Browser]:
    async with edge.browser() as browser:
        answer = await browser.sign_in(email=email, subject=email)
        assert answer.is_redirect, answer.text
        yield browser


@asynccontextmanager
async def tenant_admin(edge: ControlEdge, tenant: str) -> AsyncIterator[ControlApi]:
    """Calls with a key that administers one tenant."""
    async with edge.admin() as admin:
        made = await admin.create_key(tenant, scopes=["admin:*"], models=[])
    async with ControlApi(edge.port, made.secret) as api:
        yield api


def name_of(tenant: str, person: str) -> str:
    return f"tenants/{tenant}/members/{person.removeprefix('people/')}"


async def invited(api: ControlApi, tenant: str, email: str, role: int = MEMBER) -> str:
    invitation = pb.Invitation(email=email, role=pb.Role.ValueType(role))
    request = pb.CreateInvitationRequest(parent=f"tenants/{tenant}", invitation=invitation)
    made: pb.CreateInvitationResponse = await api.members.CreateInvitation(request)
    return made.token


async def test_a_foreign_tenant_is_not_found_whatever_is_asked_of_it(edge: ControlEdge) -> None:
    person = await make_person(edge, "there@example.com", "there")
    member = pb.Member(name=name_of("there", person), role=pb.Role.ROLE_ADMIN)
    invitation = pb.Invitation(email="x@example.com", role=pb.Role.ROLE_MEMBER)
    async with tenant_admin(edge, "here") as api:
        for tenant in ("there", "nowhere"):
            parent = f"tenants/{tenant}"
            for call in (
                api.members.ListMembers(pb.ListMembersRequest(parent=parent)),
                api.members.CreateMember(
                    pb.CreateMemberRequest(parent=parent, person=person, member=member)
                ),
                api.members.ListInvitations(pb.ListInvitationsRequest(parent=parent)),
                api.members.CreateInvitation(
                    pb.CreateInvitationRequest(parent=parent, invitation=invitation)
                ),
                api.members.DeleteInvitation(
                    pb.DeleteInvitationRequest(name=f"{parent}/invitations/x")
                ),
            ):
                error = await refused(call)
                assert isinstance(error, ResourceNotFound)
                assert error.message == f"tenant {tenant} not found"
        for call in (
            api.members.UpdateMember(pb.UpdateMemberRequest(member=member)),
            api.members.DeleteMember(pb.DeleteMemberRequest(name=member.name)),
        ):
            assert isinstance(await refused(call), ResourceNotFound)


async def test_administrators_manage_members_but_not_owners(edge: ControlEdge) -> None:
    owner = await make_person(edge, "owner@a.example", "a", OWNER)
    user = await make_person(edge, "user@a.example", "a", VIEWER)
    async with tenant_admin(edge, "a") as api:
        raised = pb.Member(name=name_of("a", user), role=pb.Role.ROLE_ADMIN)
        changed = await api.members.UpdateMember(pb.UpdateMemberRequest(member=raised))
        assert (changed.role, changed.email) == (pb.Role.ROLE_ADMIN, "user@a.example")
        for call in (
            api.members.UpdateMember(
                pb.UpdateMemberRequest(
                    member=pb.Member(name=name_of("a", user), role=pb.Role.ROLE_OWNER)
                )
            ),
            api.members.UpdateMember(
                pb.UpdateMemberRequest(
                    member=pb.Member(name=name_of("a", owner), role=pb.Role.ROLE_VIEWER)
                )
            ),
            api.members.DeleteMember(pb.DeleteMemberRequest(name=name_of("a", owner))),
            invited(api, "a", "new@a.example", OWNER),
        ):
            error = await refused(call)
            assert isinstance(error, PermissionDenied)
            assert "only owners of a" in error.message
        await api.members.DeleteMember(pb.DeleteMemberRequest(name=name_of("a", user)))
        found = await api.members.ListMembers(pb.ListMembersRequest(parent="tenants/a"))
        assert [each.email for each in found.members] == ["owner@a.example"]


async def test_owners_make_owners_and_the_last_one_stays(edge: ControlEdge) -> None:
    owner = await make_person(edge, "owner@b.example", "b", OWNER)
    heir = await make_person(edge, "heir@b.example", "b", MEMBER)
    async with signed_in(edge, "owner@b.example") as browser:
        for call in (
            browser.call("DELETE", name_of("b", owner)),
            browser.call("PATCH", name_of("b", owner), json={"role": "ROLE_ADMIN"}),
        ):
            answer = await call
            assert answer.status_code == 400
            assert "the last owner of tenant b" in answer.json()["message"]
        made = await browser.call("PATCH", name_of("b", heir), json={"role": "ROLE_OWNER"})
        assert (made.status_code, made.json()["role"]) == (200, "ROLE_OWNER")
        assert (await browser.call("DELETE", name_of("b", owner))).status_code == 200
        assert (await browser.me()).status_code == 401, "that ended this session too"


async def test_people_are_added_by_operators_and_invited_by_others(edge: ControlEdge) -> None:
    person = await make_person(edge, "free@example.com")
    request = pb.CreateMemberRequest(
        parent="tenants/c", person=person, member=pb.Member(role=pb.Role.ROLE_MEMBER)
    )
    async with tenant_admin(edge, "c") as api, edge.admin() as admin:
        error = await refused(api.members.CreateMember(request))
        assert isinstance(error, PermissionDenied)
        assert "invite this person to c" in error.message
        await admin.members.CreateMember(request)
        assert isinstance(await refused(admin.members.CreateMember(request)), ResourceExists)


async def test_an_invitation_makes_an_account_a_membership_and_a_session(
    edge: ControlEdge,
) -> None:
    async with tenant_admin(edge, "d") as api:
        token = await invited(api, "d", "New@d.example", ADMIN)
        listed = await api.members.ListInvitations(pb.ListInvitationsRequest(parent="tenants/d"))
        assert [each.email for each in listed.invitations] == ["New@d.example"]
        assert token not in str(listed)
    assert len(token) == 43
    async with edge.browser() as browser:
        body = {"token": token, "display_name": "Newcomer"}
        answer = await browser.call("POST", "invitations:accept", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["tenant"] == "tenants/d"
        me = (await browser.me()).json()
        assert (me["tenant"], me["role"]) == ("tenants/d", "admin")
        shown = (await browser.call("GET", "people/me")).json()
        assert (shown["email"], shown["display_name"]) == ("New@d.example", "Newcomer")
        again = await browser.call("POST", "invitations:accept", json=body)
        assert again.status_code == 404, "an invitation counts once"


async def test_a_known_person_accepts_only_when_signed_in(edge: ControlEdge) -> None:
    await make_person(edge, "known@e.example", "e1", MEMBER)
    async with tenant_admin(edge, "e2") as api:
        token = await invited(api, "e2", "known@e.example")
    async with edge.browser() as stranger, signed_in(edge, "known@e.example") as browser:
        denied = await stranger.call("POST", "invitations:accept", json={"token": token})
        assert (denied.status_code, stranger.session) == (403, None)
        answer = await browser.call("POST", "invitations:accept", json={"token": token})
        assert answer.status_code == 200, answer.text
        assert (await browser.me()).json()["tenant"] == "tenants/e2"


async def test_a_deleted_invitation_opens_nothing(edge: ControlEdge) -> None:
    async with tenant_admin(edge, "f") as api, edge.browser() as browser:
        token = await invited(api, "f", "x@f.example")
        request = pb.ListInvitationsRequest(parent="tenants/f")
        (invitation,) = (await api.members.ListInvitations(request)).invitations
        await api.members.DeleteInvitation(pb.DeleteInvitationRequest(name=invitation.name))
        answer = await browser.call("POST", "invitations:accept", json={"token": token})
        assert (answer.status_code, browser.session) == (404, None)


async def test_a_page_of_another_site_accepts_nothing(edge: ControlEdge) -> None:
    async with tenant_admin(edge, "g") as api, edge.browser() as browser:
        token = await invited(api, "g", "x@g.example")
        headers = {"sec-fetch-site": "cross-site"}
        answer = await browser.call(
            "POST", "invitations:accept", json={"token": token}, headers=headers
        )
        assert (answer.status_code, browser.session) == (403, None)


async def test_invalid_fields_are_named(edge: ControlEdge) -> None:
    async with edge.admin() as admin:
        await admin.create_key("h")
        person = pb.Person(email="h@example.com", display_name="x" * 201)
        cases: list[tuple[HeadraceError, str]] = [
            (await refused(invited(admin, "h", "no address")), "email"),
            (await refused(invited(admin, "h", "x@h.example", 0)), "invitation.role"),
            (await refused(invited(admin, "h", "x@h.example", 9)), "invitation.role"),
            (
                await refused(admin.people.CreatePerson(pb.CreatePersonRequest())),
                "person.email",
            ),
            (
                await refused(admin.people.CreatePerson(pb.CreatePersonRequest(person=person))),
                "person.display_name",
            ),
            (await refused(admin.people.GetPerson(pb.GetPersonRequest(name="x"))), "name"),
        ]
        for error, field in cases:
            assert (type(error), error.field) == (InvalidRequest, field)


async def test_people_are_for_operators(edge: ControlEdge) -> None:
    other = await make_person(edge, "other@i.example", "i", OWNER)
    await make_person(edge, "owner@i.example", "i", OWNER)
    async with signed_in(edge, "owner@i.example") as browser:
        assert (await browser.call("GET", "people")).status_code == 403
        assert (await browser.call("GET", other)).status_code == 404
        assert (await browser.call("POST", f"{other}:deactivate", json={})).status_code == 403
        assert (await browser.call("POST", "people", json={"email": "a@b.cc"})).status_code == 403
    async with edge.admin() as admin:
        twice = pb.CreatePersonRequest(person=pb.Person(email="OWNER@i.example"))
        assert isinstance(await refused(admin.people.CreatePerson(twice)), ResourceExists)
        error = await refused(
            admin.members.UpdateMember(
                pb.UpdateMemberRequest(
                    member=pb.Member(name=name_of("i", "people/nobody"), role=pb.Role.ROLE_ADMIN)
                )
            )
        )
        assert isinstance(error, ResourceNotFound)
        assert not isinstance(error, FailedPrecondition)
