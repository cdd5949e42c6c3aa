"""headrace member"""

from __future__ import annotations

import json
from typing import Any

import click
import grpc

from headrace.admin.v1 import people_pb2 as pb
from headrace.admin.v1.people_pb2_grpc import MemberServiceStub
from headrace.cli.admin.access.people import (
    person_name,
    print_rows,
    role_choice,
    role_name,
    role_value,
)
from headrace.cli.admin.access.values import last_part, pages, shown_time
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.errors import ResourceNotFound

_MEMBERS = "person", "email", "role", "created"
_INVITATIONS = "id", "email", "role", "expires"
_tenant = click.argument("tenant")
_who = click.argument("who", metavar="PERSON")
_role = click.option("--role", type=role_choice, default="member", help="What they may do.")


@click.group()
def member() -> None:
    """List, add, change, remove or invite a tenant's members. PERSON is an id or an address."""


@member.command("list")
@_tenant
@json_option
@mesh_options
def list_members(tenant: str, mesh: MeshTarget, as_json: bool) -> None:
    """List the members of TENANT."""
    found = call_admin_api(mesh, lambda channel: _all_members(channel, tenant))
    print_rows([_as_dict(each) for each in found], _MEMBERS, as_json=as_json)


@member.command()
@_tenant
@_who
@_role
@mesh_options
def add(tenant: str, who: str, mesh: MeshTarget, role: str) -> None:
    """Make PERSON a member of TENANT. For administrators of the mesh; others invite."""

    async def made(channel: grpc.aio.Channel) -> pb.Member:
        request = pb.CreateMemberRequest(
            parent=f"tenants/{tenant}",
            person=await person_name(channel, who),
            member=pb.Member(role=role_value(role)),
        )
        answer: pb.Member = await MemberServiceStub(channel).CreateMember(request)
        return answer

    _print_role(call_admin_api(mesh, made), tenant)


@member.command()
@_tenant
@_who
@click.option("--role", type=role_choice, required=True, help="What they may do from now on.")
@mesh_options
def update(tenant: str, who: str, mesh: MeshTarget, role: str) -> None:
    """Give the member PERSON another role. In force within a second."""

    async def changed(channel: grpc.aio.Channel) -> pb.Member:
        name = await _member_name(channel, tenant, who)
        given = pb.Member(name=name, role=role_value(role))
        request = pb.UpdateMemberRequest(member=given)
        answer: pb.Member = await MemberServiceStub(channel).UpdateMember(request)
        return answer

    _print_role(call_admin_api(mesh, changed), tenant)


@member.command()
@_tenant
@_who
@mesh_options
def remove(tenant: str, who: str, mesh: MeshTarget) -> None:
    """End a membership, with the person's sessions and keys of TENANT, within a second."""

    async def ended(channel: grpc.aio.Channel) -> None:
        name = await _member_name(channel, tenant, who)
        await MemberServiceStub(channel).DeleteMember(pb.DeleteMemberRequest(name=name))

    call_admin_api(mesh, ended)
    click.echo(f"{who} is no member of {tenant} any more; sessions and keys of it ended")


@member.command()
@_tenant
@click.argument("email")
@_role
@json_option
@mesh_options
def invite(tenant: str, email: str, mesh: MeshTarget, role: str, as_json: bool) -> None:
    """Invite whoever has this e-mail address, and show the token that accepts, this once.

    Headrace sends no mail. Who signs in through the OpenID provider with this address, and is a
    member of no tenant yet, needs no token.
    """
    invitation = pb.Invitation(email=email, role=role_value(role))
    request = pb.CreateInvitationRequest(parent=f"tenants/{tenant}", invitation=invitation)

    async def made(channel: grpc.aio.Channel) -> pb.CreateInvitationResponse:
        stub = MemberServiceStub(channel)
        answer: pb.CreateInvitationResponse = await stub.CreateInvitation(request)
        return answer

    found = call_admin_api(mesh, made)
    shown = _invitation(found.invitation)
    if as_json:
        click.echo(json.dumps({**shown, "token": found.token}, indent=1))
        return
    click.echo(found.token)
    click.echo(
        f"With this token {email} becomes {role} of {tenant}, once, until {shown['expires']}."
        " It is shown this once: pass it on now.",
        err=True,
    )


@member.command()
@_tenant
@json_option
@mesh_options
def invitations(tenant: str, mesh: MeshTarget, as_json: bool) -> None:
    """List the invitations to TENANT that were not accepted."""

    async def found(channel: grpc.aio.Channel) -> list[pb.Invitation]:
        stub: Any = MemberServiceStub(channel)

        async def page(size: int, token: str) -> pb.ListInvitationsResponse:
            request = pb.ListInvitationsRequest(
                parent=f"tenants/{tenant}", page_size=size, page_token=token
            )
            answer: pb.ListInvitationsResponse = await stub.ListInvitations(request)
            return answer

        return [each async for some in pages(page) for each in some.invitations]

    print_rows(
        [_invitation(each) for each in call_admin_api(mesh, found)], _INVITATIONS, as_json=as_json
    )


@member.command()
@_tenant
@click.argument("invitation")
@mesh_options
def uninvite(tenant: str, invitation: str, mesh: MeshTarget) -> None:
    """Delete the invitation with this id. Its token opens nothing any more."""
    request = pb.DeleteInvitationRequest(name=f"tenants/{tenant}/invitations/{invitation}")
    call_admin_api(mesh, lambda channel: MemberServiceStub(channel).DeleteInvitation(request))
    click.echo(f"invitation {invitation} is deleted")


async def _all_members(channel: grpc.aio.Channel, tenant: str) -> list[pb.Member]:
    stub: Any = MemberServiceStub(channel)

    async def page(size: int, token: str) -> pb.ListMembersResponse:
        request = pb.ListMembersRequest(
            parent=f"tenants/{tenant}", page_size=size, page_token=token
        )
        answer: pb.ListMembersResponse = await stub.ListMembers(request)
        return answer

    return [each async for some in pages(page) for each in some.members]


async def _member_name(channel: grpc.aio.Channel, tenant: str, who: str) -> str:
    """Return the membership's name, of a person who is named by id or by e-mail address.

    Raises:
        ResourceNotFound: no member has this address.
    """
    if "@" not in who:
        return f"tenants/{tenant}/members/{last_part(who)}"
    for member in await _all_members(channel, tenant):
        if member.email.lower() == who.lower():
            return member.name
    raise ResourceNotFound(f"no member of {tenant} has the e-mail address {who}")


def _print_role(found: pb.Member, tenant: str) -> None:
    who = found.email or last_part(found.name)
    click.echo(f"{who} is {role_name(found.role)} of {tenant}")


def _as_dict(found: pb.Member) -> dict[str, object]:
    return {
        "person": last_part(found.name),
        "email": found.email,
        "role": role_name(found.role),
        "created": shown_time(found, "create_time"),
    }


def _invitation(found: pb.Invitation) -> dict[str, object]:
    return {
        "id": last_part(found.name),
        "email": found.email,
        "role": role_name(found.role),
        "expires": shown_time(found, "expire_time"),
    }
