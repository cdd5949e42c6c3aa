"""headrace requests"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Any

import click
import grpc
from google.protobuf import json_format
from rich.markup import escape

from headrace.admin.v1 import operations_pb2 as pb
from headrace.admin.v1.operations_pb2_grpc import OperationServiceStub
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.list_group import shows_list
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.client.background import NO_TIMEOUT
from headrace.priorities import priority_name
from headrace.supervisor.state.failures import InvalidOption
from headrace.v1.generation_pb2 import GenerateResponse

_PAGE = 500


def _list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `headrace requests` and its `list` both take."""

    @click.option("--tenant", help="Only of this tenant; of `headrace`, canaries are listed too.")
    @click.option("--model", default="", show_default=False, help="Only of this model.")
    @click.option("--limit", type=click.IntRange(min=1), default=100, help="Show at most N.")
    @json_option
    @mesh_options
    @wraps(command)
    def with_options(**options: Any) -> Any:
        return command(**options)

    return with_options


@click.group("requests", invoke_without_command=True)
@_list_options
@click.pass_context
def requests(context: click.Context, /, **options: Any) -> None:
    """Show the requests that wait or run, the longest first, or cancel some."""
    if shows_list(context):
        _show(**options)


@requests.command("list")
@_list_options
def list_requests(**options: Any) -> None:
    """Show the requests that wait or run, the longest first."""
    _show(**options)


def _show(mesh: MeshTarget, tenant: str | None, model: str, limit: int, as_json: bool) -> None:
    parent = "" if tenant is None else f"tenants/{tenant}"
    found, unreachable = asyncio.run(_list(mesh, parent, model, limit))
    for name in sorted(unreachable):
        fact = f"the scheduler of {name} does not answer; its requests are missing"
        click.echo(f"headrace: {fact}", err=True)
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table(
        *("request", "model", "priority", "state", "worker", "age", "prompt", "output")
    )
    for each in found:
        age_s = time.time() - each.create_time.ToNanoseconds() / 1e9
        table.add_row(
            escape(_short(each.name)),
            escape(each.model),
            priority_name(each.priority),
            f"{each.state}, background" if each.background else each.state,
            escape(each.worker) or "-",
            f"{age_s:.0f} s",
            *(str(each.prompt_tokens), str(each.output_tokens)),
        )
    terminal.console().print(table if found else "no requests")


@requests.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="REQUEST...")
@mesh_options
def cancel_requests(mesh: MeshTarget, ids: tuple[str, ...]) -> None:
    """End requests, wherever they wait or run.

    REQUEST is TENANT/ID, as lists show it, or the ID of a request of the tenant `default`.
    """
    names = [_name(each) for each in ids]
    asyncio.run(_cancel(mesh, names))


@requests.command("wait")
@click.argument("request_id", metavar="REQUEST")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds. Default: until its end.")
@json_option
@mesh_options
def wait_for_request(
    request_id: str, mesh: MeshTarget, timeout: float | None, as_json: bool
) -> None:
    """Wait for the end of a request of the caller's tenant, as of a background one; print its text.

    Fails as the request does, or if it has not ended in time; it runs on then.
    """
    with mesh.client() as client:
        waited_s = NO_TIMEOUT if timeout is None else timeout
        request = client.background_request(request_id)
        answer = request.result(timeout_s=waited_s)
        if as_json:
            whole = request.get()
            message = GenerateResponse(
                request_id=whole.request_id,
                model=whole.model,
                choices=whole.outcome.choices,
                usage=whole.outcome.usage,
            )
            click.echo(json_format.MessageToJson(message, preserving_proto_field_name=True))
            return
    for choice in answer.choices:
        click.echo(choice.text)


async def _list(
    mesh: MeshTarget, parent: str, model: str, limit: int
) -> tuple[list[pb.LiveRequest], set[str]]:
    found: list[pb.LiveRequest] = []
    unreachable: set[str] = set()
    async with admin_api(mesh) as channel:
        async for page in _pages(channel, parent, model, limit):
            found += page.requests
            unreachable.update(page.unreachable)
            if len(found) >= limit:
                break
    return found[:limit], unreachable


async def _pages(
    channel: grpc.aio.Channel, parent: str, model: str, limit: int
) -> AsyncIterator[pb.ListRequestsResponse]:
    request = pb.ListRequestsRequest(parent=parent, model=model, page_size=min(limit, _PAGE))
    while True:
        page = await OperationServiceStub(channel).ListRequests(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _cancel(mesh: MeshTarget, names: list[str]) -> None:
    async with admin_api(mesh) as channel:
        for name in names:
            request = pb.CancelRequestRequest(name=name)
            was = await OperationServiceStub(channel).CancelRequest(request)
            had_ended = was.state == "ended"
            fact = "had ended before" if had_ended else f"is cancelled; it was {was.state}"
            click.echo(f"{_short(name)} {fact}")


def _name(given: str) -> str:
    tenant, slash, request_id = given.rpartition("/")
    if "/" in tenant or (slash and not tenant) or not request_id:
        raise InvalidOption(f"{given} is no request; write ID or TENANT/ID")
    return f"tenants/{tenant or 'default'}/requests/{request_id}"


def _short(name: str) -> str:
    """Return a request as `cancel` takes it."""
    _, tenant, _, request_id = name.split("/")
    return request_id if tenant == "default" else f"{tenant}/{request_id}"


def _as_dict(request: pb.LiveRequest) -> dict[str, Any]:
    return {
        "request": _short(request.name),
        "model": request.model,
        "priority": priority_name(request.priority),
        "state": request.state,
        "worker": request.worker,
        "create_time": request.create_time.ToJsonString(),
        "attempt": request.attempt,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "background": request.background,
    }
