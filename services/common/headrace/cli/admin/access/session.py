"""headrace session"""

from __future__ import annotations

from typing import Any

import click
import grpc

from headrace.admin.v1 import sessions_pb2 as pb
from headrace.admin.v1.sessions_pb2_grpc import SessionServiceStub
from headrace.cli.admin.access.people import call, print_rows
from headrace.cli.admin.access.values import last_part, pages, shown_time
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

    async def found(channel: grpc.aio.Channel) -> list[pb.Session]:
        stub: Any = SessionServiceStub(channel)

        async def page(size: int, token: str) -> pb.ListSessionsResponse:
            request = pb.ListSessionsRequest(all=True, page_size=size, page_token=token)
            answer: pb.ListSessionsResponse = await stub.ListSessions(request)
            return answer

        return [each async for some in pages(page) for each in some.sessions]

    print_rows([_as_dict(each) for each in call(mesh, found)], _COLUMNS, as_json=as_json)


@session.command()
@click.argument("session_id", metavar="ID")
@mesh_options
def end(session_id: str, mesh: MeshTarget) -> None:
    """Sign the session ID out, everywhere within a second."""
    request = pb.DeleteSessionRequest(name=f"sessions/{last_part(session_id)}")

    async def ended(channel: grpc.aio.Channel) -> None:
        async for _ in SessionServiceStub(channel).DeleteSession(request):
            pass

    call(mesh, ended)
    click.echo(f"session {last_part(session_id)} has ended")


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
