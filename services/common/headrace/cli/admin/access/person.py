"""headrace person"""

from __future__ import annotations

import click
import grpc

from headrace.admin.v1 import people_pb2 as pb
from headrace.admin.v1.people_pb2_grpc import MemberServiceStub, PersonServiceStub
from headrace.cli.admin.access.people import (
    all_people,
    person_name,
    print_rows,
    role_choice,
    role_name,
    role_value,
)
from headrace.cli.admin.access.values import last_part, shown_time
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options

_COLUMNS = "id", "email", "display_name", "last_sign_in", "deactivated"
_who = click.argument("who", metavar="PERSON")


@click.group()
def person() -> None:
    """Create, list, deactivate or activate people, who sign in. PERSON is an id or an address."""


@person.command()
@click.argument("email")
@click.option("--display-name", default="", help="Name for people.")
@click.option("--tenant", help="Make this person a member of this tenant, which must exist.")
@click.option("--role", type=role_choice, default="member", help="Role in that tenant.")
@json_option
@mesh_options
def create(
    email: str,
    mesh: MeshTarget,
    display_name: str,
    tenant: str | None,
    role: str,
    as_json: bool,
) -> None:
    """Make an account for the person whose e-mail address the OpenID provider will prove."""

    async def made(channel: grpc.aio.Channel) -> pb.Person:
        new = pb.CreatePersonRequest(person=pb.Person(email=email, display_name=display_name))
        found: pb.Person = await PersonServiceStub(channel).CreatePerson(new)
        if tenant:
            member = pb.Member(role=role_value(role))
            joins = pb.CreateMemberRequest(
                parent=f"tenants/{tenant}", person=found.name, member=member
            )
            found.memberships.append(await MemberServiceStub(channel).CreateMember(joins))
        return found

    terminal.print_fields(_as_dict(call_admin_api(mesh, made)), as_json=as_json)


@person.command("list")
@json_option
@mesh_options
def list_people(mesh: MeshTarget, as_json: bool) -> None:
    """List all people, the oldest account first."""
    print_rows(
        [_as_dict(each) for each in call_admin_api(mesh, all_people)], _COLUMNS, as_json=as_json
    )


@person.command()
@_who
@json_option
@mesh_options
def show(who: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show a person, with the tenants that this person is a member of."""

    async def found(channel: grpc.aio.Channel) -> pb.Person:
        request = pb.GetPersonRequest(name=await person_name(channel, who))
        answer: pb.Person = await PersonServiceStub(channel).GetPerson(request)
        return answer

    terminal.print_fields(_as_dict(call_admin_api(mesh, found)), as_json=as_json)


@person.command()
@_who
@mesh_options
def deactivate(who: str, mesh: MeshTarget) -> None:
    """End a person's sessions and keys within a second, and let this person sign in no more."""

    async def ended(channel: grpc.aio.Channel) -> pb.Person:
        request = pb.DeactivatePersonRequest(name=await person_name(channel, who))
        answer: pb.Person = await PersonServiceStub(channel).DeactivatePerson(request)
        return answer

    found = call_admin_api(mesh, ended)
    click.echo(f"{found.email or last_part(found.name)} is deactivated; sessions and keys ended")


@person.command()
@_who
@mesh_options
def activate(who: str, mesh: MeshTarget) -> None:
    """Let a deactivated person sign in again. Keys that ended stay ended."""

    async def begun(channel: grpc.aio.Channel) -> pb.Person:
        request = pb.ActivatePersonRequest(name=await person_name(channel, who))
        answer: pb.Person = await PersonServiceStub(channel).ActivatePerson(request)
        return answer

    found = call_admin_api(mesh, begun)
    click.echo(f"{found.email or last_part(found.name)} may sign in again")


def _as_dict(found: pb.Person) -> dict[str, object]:
    return {
        "id": last_part(found.name),
        "email": found.email,
        "display_name": found.display_name,
        "deactivated": found.deactivated,
        "created": shown_time(found, "create_time"),
        "last_sign_in": shown_time(found, "last_sign_in_time"),
        "roles": {each.name.split("/")[1]: role_name(each.role) for each in found.memberships},
    }
