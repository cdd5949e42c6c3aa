"""MemberService: members of tenants, and invitations to become one."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.admin.v1 import people_pb2 as pb
from headrace.admin.v1.people_pb2_grpc import MemberServiceServicer
from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest, PermissionDenied, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.people.http_replies import send_json
from headrace_control.api.people.messages import (
    invitation_message,
    member_message,
    person_message,
    role_named,
)
from headrace_control.api.people.opener import SessionOpener
from headrace_control.api.people.person_service import display_name
from headrace_control.api.resource_names import id_in, ids_in
from headrace_control.api.tenancy.rules import actor
from headrace_control.base.records import BY_INVITATION, OWNER, Session
from headrace_control.store import PageOptions

INVITED_S = 7 * 24 * 3600.0
"""How long an invitation can be accepted."""
_TENANT, _MEMBER = "tenants/{tenant}", "tenants/{tenant}/members/{person}"


class MemberService(MemberServiceServicer):
    """Administrators manage the members of their own tenant, and operators those of any."""

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self._opener = SessionOpener(parts)

    async def CreateMember(self, request: pb.CreateMemberRequest, context: Context) -> pb.Member:
        caller = current_caller()
        tenant = _administered(caller, id_in(request.parent, _TENANT, field="parent"))
        role = role_named(request.member.role, field="member.role")
        person = id_in(request.person, "people/{person}", field="person")
        # Why: a person who is added without consent may work in the wrong tenant unawares.
        if not caller.is_operator:
            raise PermissionDenied(
                f"only operators of the mesh add people by id; invite this person to {tenant}"
            )
        return member_message(
            await self._store.members.create(tenant, person, role, by=actor(caller))
        )

    async def ListMembers(
        self, request: pb.ListMembersRequest, context: Context
    ) -> pb.ListMembersResponse:
        tenant = _administered(current_caller(), id_in(request.parent, _TENANT, field="parent"))
        await self._store.tenants.get(tenant)
        options = PageOptions(request.page_size, request.page_token)
        page = await self._store.members.list(tenant, options)
        found = map(member_message, page.items)
        return pb.ListMembersResponse(members=found, next_page_token=page.next_page_token)

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Context) -> pb.Member:
        caller, given = current_caller(), request.member
        tenant, person = ids_in(given.name, _MEMBER, field="member.name")
        _administered(caller, tenant)
        if unknown := [path for path in request.update_mask.paths if path not in ("role", "*")]:
            raise InvalidRequest(
                f"update_mask has {unknown[0][:80]!r}; only role can be changed",
                field="update_mask",
            )
        role = role_named(given.role, field="member.role")
        before = await self._store.members.get(tenant, person)
        _check_owner(caller, tenant, role, before.role)
        return member_message(
            await self._store.members.update(tenant, person, role, by=actor(caller))
        )

    async def DeleteMember(self, request: pb.DeleteMemberRequest, context: Context) -> Empty:
        caller = current_caller()
        tenant, person = ids_in(request.name, _MEMBER)
        _administered(caller, tenant)
        before = await self._store.members.get(tenant, person)
        _check_owner(caller, tenant, before.role)
        await self._store.members.delete(tenant, person, by=actor(caller))
        return Empty()

    async def CreateInvitation(
        self, request: pb.CreateInvitationRequest, context: Context
    ) -> pb.CreateInvitationResponse:
        caller = current_caller()
        tenant = _administered(caller, id_in(request.parent, _TENANT, field="parent"))
        role = role_named(request.invitation.role, field="invitation.role")
        _check_owner(caller, tenant, role)
        token = secrets.token_urlsafe(32)
        invitation = await self._store.invitations.create(
            tenant,
            request.invitation.email,
            role,
            token_hash=token_hash(token),
            expires=self._store.now() + timedelta(seconds=INVITED_S),
            by=actor(caller),
        )
        return pb.CreateInvitationResponse(invitation=invitation_message(invitation), token=token)

    async def ListInvitations(
        self, request: pb.ListInvitationsRequest, context: Context
    ) -> pb.ListInvitationsResponse:
        tenant = _administered(current_caller(), id_in(request.parent, _TENANT, field="parent"))
        await self._store.tenants.get(tenant)
        options = PageOptions(request.page_size, request.page_token)
        page = await self._store.invitations.list(tenant, options)
        found = map(invitation_message, page.items)
        return pb.ListInvitationsResponse(invitations=found, next_page_token=page.next_page_token)

    async def DeleteInvitation(
        self, request: pb.DeleteInvitationRequest, context: Context
    ) -> Empty:
        caller = current_caller()
        tenant, invitation = ids_in(request.name, "tenants/{tenant}/invitations/{invitation}")
        _administered(caller, tenant)
        await self._store.invitations.delete(tenant, invitation, by=actor(caller))
        return Empty()

    async def AcceptInvitation(
        self, request: pb.AcceptInvitationRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        caller = current_caller()
        self._opener.require_sessions()
        self._opener.refuse_other_sites(context)
        name = display_name(request.display_name, field="display_name")
        with self._opener.counting_failures(context):
            person, member = await self._store.invitations.accept(
                token_hash(request.token),
                display_name=name,
                signed_in_as=caller.person,
                by=actor(caller),
            )
        session = Session("", "", member.tenant, person=person.person_id, opened_by=BY_INVITATION)
        opened = await self._opener.open(context, session)
        answer = pb.AcceptInvitationResponse(
            person=person_message(person, [member]), tenant=f"tenants/{member.tenant}"
        )
        yield await send_json(context, answer, [("set-cookie", opened.cookie)])


def token_hash(token: str) -> str:
    """Return what is stored of an invitation's token, which has 256 random bits."""
    return sha256(token.encode()).hexdigest()


def _check_owner(caller: Caller, tenant: str, *roles: str) -> None:
    """
    Raises:
        PermissionDenied: a role is that of an owner, and the caller is none.
    """
    if OWNER in roles and not caller.is_operator and caller.role != OWNER:
        raise PermissionDenied(
            f"only owners of {tenant}, signed in as such, and operators of the mesh make and"
            " change owners"
        )


def _administered(caller: Caller, tenant: str) -> str:
    """Return the tenant.

    Raises:
        ResourceNotFound: it is not the caller's to administer, as if there were none.
    """
    if not caller.may_administer(tenant):
        raise ResourceNotFound(f"tenant {tenant} not found")
    return tenant
