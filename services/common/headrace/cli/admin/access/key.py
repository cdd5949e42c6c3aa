"""headrace key"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from rich.markup import escape

from headrace.admin.v1 import keys_pb2 as pb
from headrace.admin.v1 import tenants_pb2
from headrace.admin.v1.keys_pb2_grpc import KeyServiceStub
from headrace.auth.scopes import ANY_MODEL, DEFAULT_TENANT, SCOPES, USER_SCOPES
from headrace.cli.admin.access.key_limits import limits
from headrace.cli.admin.access.limits import (
    chosen_limits,
    limit_options,
    model_limit_option,
    shown_limits,
    shown_model_limits,
)
from headrace.cli.admin.access.values import (
    Label,
    day_text,
    last_part,
    pages,
    shown_time,
    time_after,
)
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.cli.console.spans import Span

T = TypeVar("T")


@click.group()
def key() -> None:
    """Create, list, rotate or revoke API keys."""


key.add_command(limits)


@key.command()
@click.option("--tenant", default=DEFAULT_TENANT, help="Whose key; a new tenant is created.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=USER_SCOPES,
    help="What it may do. May be repeated; admin:* stands alone.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=(ANY_MODEL,),
    help="Name of a model that it may use; * for all. May be repeated.",
)
@click.option("--label", "labels", type=Label(), multiple=True, help="Label. May be repeated.")
@click.option("--expires", type=Span(), help="When it ends, from now, as 30d. Default: never.")
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Network that it may be used from, as 10.1.0.0/16. May be repeated. Default: any.",
)
@click.option("--display-name", default="", show_default=False, help="Name for people.")
@limit_options
@model_limit_option
@json_option
@mesh_options
def create(mesh: MeshTarget, tenant: str, as_json: bool, **options: Any) -> None:
    """Create a key, and show it this once."""
    message = pb.Key(
        display_name=options["display_name"],
        scopes=options["scopes"],
        models=options["models"],
        networks=options["networks"],
        labels=dict(options["labels"]),
        limits=tenants_pb2.Limits(**chosen_limits(options)),
        model_limits=options["model_limits"],
        expire_time=None if options["expires"] is None else time_after(options["expires"]),
    )
    request = pb.CreateKeyRequest(parent=f"tenants/{tenant}", key=message)
    _print_secret(_call(mesh, lambda stub: stub.CreateKey(request)), as_json=as_json)


@key.command("list")
@click.option("--tenant", default="-", help="Whose keys. Default: all that the key administers.")
@click.option("--all", "show_ended", is_flag=True, help="Revoked and expired keys too.")
@click.option("--old-pepper", is_flag=True, help="Only keys that need an old pepper.")
@json_option
@mesh_options
def list_keys(
    mesh: MeshTarget, tenant: str, show_ended: bool, old_pepper: bool, as_json: bool
) -> None:
    """List keys, the newest first; their secrets are known to nobody."""
    found = _call(mesh, lambda stub: _all_keys(stub, tenant, show_ended=show_ended))
    if old_pepper:
        found = [each for each in found if each.old_pepper]
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("id", "tenant", "name", "scopes", "models", "state", "last used")
    for each in found:
        shown = _as_dict(each)
        table.add_row(
            str(shown["id"]),
            str(shown["tenant"]),
            escape(each.display_name) or "-",
            " ".join(each.scopes),
            escape(" ".join(each.models)) or "-",
            _state(each),
            day_text(shown_time(each, "last_use_time")),
        )
    nothing = "no key needs an old pepper" if old_pepper else "there is no key"
    terminal.console().print(table if found else nothing)


@key.command()
@click.argument("key_id", metavar="ID")
@json_option
@mesh_options
def show(key_id: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show the key ID, without its secret."""
    request = pb.GetKeyRequest(name=_name(key_id))
    terminal.print_fields(_as_dict(_call(mesh, lambda stub: stub.GetKey(request))), as_json=as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@click.option("--display-name", help="Name for people.")
@limit_options
@model_limit_option
@click.option("--no-model-limits", is_flag=True, help="Lift the limits of single models.")
@json_option
@mesh_options
def update(
    key_id: str, mesh: MeshTarget, as_json: bool, no_model_limits: bool, **options: Any
) -> None:
    """Change the name or limits of the key ID: what is given, and nothing else. In force within a
    second."""
    limits = chosen_limits(options)
    message = pb.Key(
        name=_name(key_id),
        display_name=options["display_name"] or "",
        limits=tenants_pb2.Limits(**limits),
        model_limits=options["model_limits"],
    )
    paths = [f"limits.{limit}" for limit in limits]
    if options["display_name"] is not None:
        paths.append("display_name")
    if options["model_limits"] or no_model_limits:
        paths.append("model_limits")
    if not paths:
        raise click.UsageError("nothing to change is given")
    request = pb.UpdateKeyRequest(key=message)
    request.update_mask.paths.extend(paths)
    found = _call(mesh, lambda stub: stub.UpdateKey(request))
    terminal.print_fields(_as_dict(found), as_json=as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    type=Span(),
    default=timedelta(days=1),
    show_default="1d",
    help="How long the old secret goes on; 0s ends it now.",
)
@json_option
@mesh_options
def rotate(key_id: str, mesh: MeshTarget, grace: timedelta, as_json: bool) -> None:
    """Give the key ID a new secret, and show it this once. Its id and what it may do stay."""
    request = pb.RotateKeyRequest(name=_name(key_id))
    request.grace.FromTimedelta(grace)
    _print_secret(_call(mesh, lambda stub: stub.RotateKey(request)), as_json=as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@json_option
@mesh_options
def revoke(key_id: str, mesh: MeshTarget, as_json: bool) -> None:
    """End the key ID for good, on every gateway within a second."""
    request = pb.RevokeKeyRequest(name=_name(key_id))
    found = _call(mesh, lambda stub: stub.RevokeKey(request))
    if as_json:
        click.echo(json.dumps(_as_dict(found), indent=1))
        return
    shown = _as_dict(found)
    click.echo(f"key {shown['id']} of tenant {shown['tenant']} is revoked")


def _name(key_id: str) -> str:
    return f"tenants/-/keys/{key_id}"


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(KeyServiceStub(channel)))


async def _all_keys(stub: Any, tenant: str, *, show_ended: bool) -> list[pb.Key]:
    async def page(size: int, token: str) -> pb.ListKeysResponse:
        request = pb.ListKeysRequest(
            parent=f"tenants/{tenant}", page_size=size, page_token=token, show_ended=show_ended
        )
        answer: pb.ListKeysResponse = await stub.ListKeys(request)
        return answer

    return [each async for found in pages(page) for each in found.keys]


def _state(found: pb.Key) -> str:
    if found.HasField("revoke_time"):
        return "revoked"
    if not found.HasField("expire_time"):
        return "valid"
    if found.expire_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC):
        return "expired"
    return f"until {day_text(shown_time(found, 'expire_time'))}"


def _as_dict(found: pb.Key) -> dict[str, object]:
    _, tenant, _, key_id = found.name.split("/")
    return {
        "id": key_id,
        "tenant": tenant,
        "person": last_part(found.person) or None,
        "display_name": found.display_name,
        "redacted": found.redacted,
        "scopes": list(found.scopes),
        "models": list(found.models),
        "networks": list(found.networks),
        "limits": shown_limits(found.limits),
        "model_limits": shown_model_limits(found.model_limits),
        "labels": dict(found.labels),
        "expires": shown_time(found, "expire_time"),
        "created": shown_time(found, "create_time"),
        "revoked": shown_time(found, "revoke_time"),
        "last_used": shown_time(found, "last_use_time"),
        "last_client": found.last_use_client or None,
        "old_pepper": found.old_pepper,
    }


def _print_secret(made: pb.CreateKeyResponse, *, as_json: bool) -> None:
    shown = _as_dict(made.key)
    if as_json:
        click.echo(json.dumps({"id": shown["id"], "key": made.secret, **shown}, indent=1))
        return
    click.echo(made.secret)
    click.echo(
        f"This is the key {shown['id']} of tenant {shown['tenant']}."
        " It is shown this once: store it now.",
        err=True,
    )
