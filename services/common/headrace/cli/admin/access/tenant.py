"""headrace tenant"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from rich.markup import escape

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.admin.v1.tenants_pb2_grpc import TenantServiceStub
from headrace.cli.admin.access.limits import model_limit_option, shown_model_limits
from headrace.cli.admin.access.values import (
    day_text,
    last_part,
    pages,
    priority_choice,
    priority_value,
    shown_priority,
    shown_time,
)
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def tenant() -> None:
    """Create, list, change or delete tenants: the companies or teams that the mesh serves."""


def _fields(command: F) -> F:
    """Add the options of a tenant's fields."""
    for add in (
        click.option(
            "--upstream-engines/--no-upstream-engines",
            default=None,
            help="Whether engines that are not the mesh's own may serve it.",
        ),
        click.option(
            "--response-cache/--no-response-cache",
            default=None,
            help="Whether answers may come from a cache, where a request asks for it.",
        ),
        click.option(
            "--on-keeper-loss",
            type=click.Choice(("refuse", "allow")),
            help="What becomes of requests that a limit applies to while quotas cannot be checked.",
        ),
        click.option("--currency", help="In which it is billed, as EUR (ISO 4217)."),
        click.option("--time-zone", help="In which its days and months begin, as Europe/Zurich."),
        model_limit_option,
        click.option("--network", "networks", multiple=True, metavar="CIDR", help=_NETWORK_HELP),
        click.option("--weight", type=click.FloatRange(min=0), help="Share of a lane; usually 1."),
        click.option("--highest-priority", type=priority_choice, help="Most urgent one allowed."),
        click.option("--default-priority", type=priority_choice, help="Of calls that name none."),
        click.option("--plan", help="Plan, which has its limits; '' for none."),
        click.option("--display-name", help="Name for people."),
    ):
        command = add(command)
    return command


_KEEPER_LOSS = {"refuse": pb.KEEPER_LOSS_REFUSE, "allow": pb.KEEPER_LOSS_ALLOW}
_NETWORK_HELP = "Network that it may be used from, as 10.1.0.0/16. May be repeated."


@tenant.command()
@click.argument("name")
@_fields
@json_option
@mesh_options
def create(name: str, mesh: MeshTarget, as_json: bool, **options: Any) -> None:
    """Create the tenant NAME."""
    message, _ = _message(options)
    request = pb.CreateTenantRequest(tenant_id=name, tenant=message)
    _print(_call(mesh, lambda stub: stub.CreateTenant(request)), as_json=as_json)


@tenant.command("list")
@json_option
@mesh_options
def list_tenants(mesh: MeshTarget, as_json: bool) -> None:
    """List the tenants that the key administers."""
    found = _call(mesh, _all_tenants)
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("tenant", "name", "plan", "priorities", "weight", "state", "created")
    for each in found:
        shown = _as_dict(each)
        table.add_row(
            str(shown["tenant"]),
            escape(each.display_name) or "-",
            str(shown["plan"] or "-"),
            f"{shown['default_priority']}, up to {shown['highest_priority']}",
            f"{each.weight:g}",
            "disabled" if each.disabled else "enabled",
            day_text(shown_time(each, "create_time")),
        )
    terminal.console().print(table)


@tenant.command()
@click.argument("name")
@json_option
@mesh_options
def show(name: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show the tenant NAME."""
    request = pb.GetTenantRequest(name=f"tenants/{name}")
    _print(_call(mesh, lambda stub: stub.GetTenant(request)), as_json=as_json)


@tenant.command()
@click.argument("name")
@_fields
@click.option("--no-model-limits", is_flag=True, help="Lift the limits of single models.")
@click.option("--any-network", is_flag=True, help="Lift the restriction to networks.")
@click.option("--disable/--enable", "disabled", default=None, help="Refuse its keys and sessions.")
@json_option
@mesh_options
def update(
    name: str, mesh: MeshTarget, as_json: bool, disabled: bool | None, **options: Any
) -> None:
    """Change the tenant NAME: what is given, and nothing else. In force within a second."""
    message, paths = _message(options)
    message.name = f"tenants/{name}"
    if disabled is not None:
        message.disabled = disabled
        paths.append("disabled")
    if not paths:
        raise click.UsageError("nothing to change is given")
    request = pb.UpdateTenantRequest(tenant=message)
    request.update_mask.paths.extend(paths)
    _print(_call(mesh, lambda stub: stub.UpdateTenant(request)), as_json=as_json)


@tenant.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Delete it with the keys that it has.")
@mesh_options
def delete(name: str, mesh: MeshTarget, force: bool) -> None:
    """Delete the tenant NAME with its keys, memberships, invitations and sessions."""
    request = pb.DeleteTenantRequest(name=f"tenants/{name}", force=force)
    _call(mesh, lambda stub: stub.DeleteTenant(request))
    click.echo(f"tenant {name} is deleted")


def _message(options: dict[str, Any]) -> tuple[pb.Tenant, list[str]]:
    """Return the tenant of the options, and the fields that they name."""
    message, paths = pb.Tenant(), []
    for field in ("display_name", "weight"):
        if options[field] is not None:
            setattr(message, field, options[field])
            paths.append(field)
    if options["plan"] is not None:
        message.plan = f"plans/{options['plan']}" if options["plan"] else ""
        paths.append("plan")
    for field in ("default_priority", "highest_priority"):
        if options[field] is not None:
            setattr(message, field, priority_value(options[field]))
            paths.append(field)
    for field in ("time_zone", "currency", "response_cache"):
        if options[field] is not None:
            setattr(message, field, options[field])
            paths.append(field)
    if options["upstream_engines"] is not None:
        message.forbid_upstream_engines = not options["upstream_engines"]
        paths.append("forbid_upstream_engines")
    if options["on_keeper_loss"] is not None:
        message.on_keeper_loss = _KEEPER_LOSS[options["on_keeper_loss"]]
        paths.append("on_keeper_loss")
    if options["model_limits"] or options.get("no_model_limits"):
        message.model_limits.extend(options["model_limits"])
        paths.append("model_limits")
    if options["networks"] or options.get("any_network"):
        message.networks.extend(options["networks"])
        paths.append("networks")
    return message, paths


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(TenantServiceStub(channel)))


async def _all_tenants(stub: Any) -> list[pb.Tenant]:
    async def page(size: int, token: str) -> pb.ListTenantsResponse:
        request = pb.ListTenantsRequest(page_size=size, page_token=token)
        answer: pb.ListTenantsResponse = await stub.ListTenants(request)
        return answer

    return [each async for found in pages(page) for each in found.tenants]


def _as_dict(found: pb.Tenant) -> dict[str, object]:
    return {
        "tenant": last_part(found.name),
        "display_name": found.display_name,
        "plan": last_part(found.plan) or None,
        "default_priority": shown_priority(found.default_priority),
        "highest_priority": shown_priority(found.highest_priority),
        "weight": found.weight,
        "networks": list(found.networks),
        "disabled": found.disabled,
        "model_limits": shown_model_limits(found.model_limits),
        "time_zone": found.time_zone,
        "currency": found.currency,
        "on_keeper_loss": "allow" if found.on_keeper_loss == pb.KEEPER_LOSS_ALLOW else "refuse",
        "response_cache": found.response_cache,
        "upstream_engines": not found.forbid_upstream_engines,
        "created": shown_time(found, "create_time"),
        "updated": shown_time(found, "update_time"),
    }


def _print(found: pb.Tenant, *, as_json: bool) -> None:
    shown = _as_dict(found)
    terminal.print_fields(shown, as_json=as_json)
