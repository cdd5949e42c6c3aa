"""headrace plan"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from rich.markup import escape

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.admin.v1.tenants_pb2_grpc import PlanServiceStub
from headrace.cli.admin.access.limits import (
    chosen_limits,
    limit_options,
    limits_text,
    shown_limits,
)
from headrace.cli.admin.access.values import last_part, pages, shown_time
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options

T = TypeVar("T")

_display_name = click.option("--display-name", help="Name for people.")


@click.group()
def plan() -> None:
    """Create, list, change or delete plans: named sets of limits, which tenants have."""


@plan.command()
@click.argument("name")
@_display_name
@limit_options
@json_option
@mesh_options
def create(
    name: str, mesh: MeshTarget, as_json: bool, display_name: str | None, **limits: Any
) -> None:
    """Create the plan NAME."""
    message = pb.Plan(display_name=display_name or "", limits=pb.Limits(**chosen_limits(limits)))
    request = pb.CreatePlanRequest(plan_id=name, plan=message)
    _print(_call(mesh, lambda stub: stub.CreatePlan(request)), as_json=as_json)


@plan.command("list")
@json_option
@mesh_options
def list_plans(mesh: MeshTarget, as_json: bool) -> None:
    """List the plans."""
    found = _call(mesh, _all_plans)
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("plan", "name", "limits")
    for each in found:
        table.add_row(
            last_part(each.name), escape(each.display_name) or "-", limits_text(each.limits)
        )
    terminal.console().print(table if found else "there is no plan")


@plan.command()
@click.argument("name")
@json_option
@mesh_options
def show(name: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show the plan NAME."""
    request = pb.GetPlanRequest(name=f"plans/{name}")
    _print(_call(mesh, lambda stub: stub.GetPlan(request)), as_json=as_json)


@plan.command()
@click.argument("name")
@_display_name
@limit_options
@json_option
@mesh_options
def update(
    name: str, mesh: MeshTarget, as_json: bool, display_name: str | None, **limits: Any
) -> None:
    """Change the plan NAME: the limits that are given. In force for its tenants within a second."""
    chosen = chosen_limits(limits)
    message = pb.Plan(name=f"plans/{name}", limits=pb.Limits(**chosen))
    paths = [f"limits.{limit}" for limit in chosen]
    if display_name is not None:
        message.display_name = display_name
        paths.append("display_name")
    if not paths:
        raise click.UsageError("nothing to change is given")
    request = pb.UpdatePlanRequest(plan=message)
    request.update_mask.paths.extend(paths)
    _print(_call(mesh, lambda stub: stub.UpdatePlan(request)), as_json=as_json)


@plan.command()
@click.argument("name")
@mesh_options
def delete(name: str, mesh: MeshTarget) -> None:
    """Delete the plan NAME, which no tenant may have."""
    _call(mesh, lambda stub: stub.DeletePlan(pb.DeletePlanRequest(name=f"plans/{name}")))
    click.echo(f"plan {name} is deleted")


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(PlanServiceStub(channel)))


async def _all_plans(stub: Any) -> list[pb.Plan]:
    async def page(size: int, token: str) -> pb.ListPlansResponse:
        request = pb.ListPlansRequest(page_size=size, page_token=token)
        answer: pb.ListPlansResponse = await stub.ListPlans(request)
        return answer

    return [each async for found in pages(page) for each in found.plans]


def _as_dict(found: pb.Plan) -> dict[str, object]:
    return {
        "plan": last_part(found.name),
        "display_name": found.display_name,
        "limits": shown_limits(found.limits),
        "created": shown_time(found, "create_time"),
        "updated": shown_time(found, "update_time"),
    }


def _print(found: pb.Plan, *, as_json: bool) -> None:
    terminal.print_fields(_as_dict(found), as_json=as_json)
