"""headrace session"""

from __future__ import annotations

from typing import Any

import click
import grpc

from headrace.admin.v1 import sessions_pb2 as pb
from headrace.admin.v1.sessions_pb2_grpc import SessionServiceStub
from headrace.cli.admin.access.people import print_rows
from headrace.cli.admin.access.values import last_part, pages, shown_time
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options

_COLUMNS = "id", "tenant", "person", "role", "key", "client", "created", "expires"


@click.group()
def session() -> None:
    """List or end the sessions of people in browsers."""


@session.command("list")
@json_option
@mesh_options
def list_sessions(mesh: MeshTarget, as_json: bool) -> None:
    """List the sessions of all tenants that the key administers, the newest first."""
    found = call_admin_api(mesh, _all_sessions)
    print_rows([_as_dict(each) for each in found], _COLUMNS, as_json=as_json)


@session.command()
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--all", "every", is_flag=True, help="All that the key administers, in place of ID.")
@click.option("--tenant", help="With --all: only those for this tenant.")
@mesh_options
def end(session_id: str | None, every: bool, tenant: str | None, mesh: MeshTarget) -> None:
    """Sign the session ID out, or all of them, everywhere within a second."""
    if (session_id is None) != every:
        raise click.UsageError("give the ID of a session, or --all")
    if tenant is not None and not every:
        raise click.UsageError("--tenant goes with --all; an ID names one session")
    if session_id is not None:
        call_admin_api(mesh, lambda channel: _end(channel, session_id))
        click.echo(f"session {last_part(session_id)} has ended")
        return

    async def end_all(channel: grpc.aio.Channel) -> int:
        found = [
            each
            for each in await _all_sessions(channel)
            if tenant is None or last_part(each.tenant) == tenant
        ]
        for each in found:
            await _end(channel, each.name)
        return len(found)

    of = "" if tenant is None else f" of tenant {tenant}"
    click.echo(f"sessions{of} that have ended: {call_admin_api(mesh, end_all)}")


async def _all_sessions(channel: grpc.aio.Channel) -> list[pb.Session]:
    stub: Any = SessionServiceStub(channel)

    async def page(size: int, token: str) -> pb.ListSessionsResponse:
        request = pb.ListSessionsRequest(all=True, page_size=size, page_token=token)
        answer: pb.ListSessionsResponse = await stub.ListSessions(request)
        return answer

    return [each async for some in pages(page) for each in some.sessions]


async def _end(channel: grpc.aio.Channel, session_id: str) -> None:
    request = pb.DeleteSessionRequest(name=f"sessions/{last_part(session_id)}")
    async for _ in SessionServiceStub(channel).DeleteSession(request):
        pass


def _as_dict(found: pb.Session) -> dict[str, object]:
    return {
        "id": last_part(found.name),
        "tenant": last_part(found.tenant),
        "person": last_part(found.person) or None,
        "role": found.role or None,
        "key": last_part(found.key) or None,
        "scopes": list(found.scopes),
        "client": found.client,
        "created": shown_time(found, "create_time"),
        "expires": shown_time(found, "expire_time"),
    }
