"""headrace webhook"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import click
from rich.markup import escape

from headrace.admin.v1 import webhooks_pb2 as pb
from headrace.admin.v1.webhooks_pb2_grpc import WebhookServiceStub
from headrace.auth.scopes import DEFAULT_TENANT
from headrace.cli.admin.access.values import (
    Label,
    day_text,
    last_part,
    pages,
    shown_time,
)
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.cli.console.spans import Span

T = TypeVar("T")
_State = pb.WebhookDelivery.State
_STATES = {
    "any": pb.WebhookDelivery.STATE_UNSPECIFIED,
    "pending": pb.WebhookDelivery.STATE_PENDING,
    "delivered": pb.WebhookDelivery.STATE_DELIVERED,
    "dead": pb.WebhookDelivery.STATE_DEAD,
}
_TEST_S, _LOOK_S = 12.0, 0.2


@click.group()
def webhook() -> None:
    """Create, list, change, test or delete endpoints of webhooks; list and resend deliveries."""


@webhook.command()
@click.argument("target", metavar="URL")
@click.option("--tenant", default=DEFAULT_TENANT, help="Whose events; a new tenant is created.")
@click.option(
    "--event",
    "events",
    multiple=True,
    help="Type of event, as batch.completed. May be repeated. Default: all.",
)
@click.option("--label", "labels", type=Label(), multiple=True, help="Label. May be repeated.")
@click.option("--display-name", default="", show_default=False, help="Name for people.")
@json_option
@mesh_options
def create(target: str, mesh: MeshTarget, tenant: str, as_json: bool, **options: Any) -> None:
    """Send a tenant's events to URL, and show the secret that signs them this once."""
    message = pb.WebhookEndpoint(
        url=target,
        display_name=options["display_name"],
        event_types=options["events"],
        labels=dict(options["labels"]),
    )
    request = pb.CreateWebhookEndpointRequest(parent=f"tenants/{tenant}", webhook_endpoint=message)
    made = _call(mesh, lambda stub: stub.CreateWebhookEndpoint(request))
    _print_secret(made, as_json=as_json)


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.option("--to", "target", metavar="URL", help="Where its events are sent from now on.")
@click.option("--event", "events", multiple=True, help="Type of event. May be repeated.")
@click.option("--all-events", is_flag=True, help="Events of all types, unless --event is given.")
@click.option("--label", "labels", type=Label(), multiple=True, help="Label. May be repeated.")
@click.option("--no-labels", is_flag=True, help="Without labels, unless --label is given.")
@click.option("--display-name", help="Name for people.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether nothing is sent.")
@json_option
@mesh_options
def update(webhook_id: str, mesh: MeshTarget, as_json: bool, **options: Any) -> None:
    """Change the endpoint ID: what is given, and nothing else. Its secret stays."""
    changes: dict[str, Any] = {
        field: value
        for field, value in (
            ("url", options["target"]),
            ("display_name", options["display_name"]),
            ("disabled", options["disabled"]),
            ("event_types", options["events"] or ([] if options["all_events"] else None)),
            ("labels", dict(options["labels"]) or ({} if options["no_labels"] else None)),
        )
        if value is not None
    }
    if not changes:
        raise click.UsageError("nothing to change is given")
    message = pb.WebhookEndpoint(name=_name(webhook_id), **changes)
    request = pb.UpdateWebhookEndpointRequest(webhook_endpoint=message)
    request.update_mask.paths.extend(changes)
    found = _call(mesh, lambda stub: stub.UpdateWebhookEndpoint(request))
    terminal.print_fields(_as_dict(found), as_json=as_json)


@webhook.command("list")
@click.option("--tenant", default="-", help="Whose. Default: all that the key administers.")
@json_option
@mesh_options
def list_webhooks(mesh: MeshTarget, tenant: str, as_json: bool) -> None:
    """List endpoints, the newest first."""
    found = _call(mesh, lambda stub: _all_endpoints(stub, tenant))
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("id", "tenant", "url", "events", "state")
    for each in found:
        shown = _as_dict(each)
        events = " ".join(each.event_types) or "all"
        state = each.disabled_reason or "enabled"
        table.add_row(str(shown["id"]), str(shown["tenant"]), escape(each.url), events, state)
    terminal.console().print(table if found else "there is no webhook endpoint")


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@json_option
@mesh_options
def show(webhook_id: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show the endpoint ID, without its secret."""
    request = pb.GetWebhookEndpointRequest(name=_name(webhook_id))
    found = _call(mesh, lambda stub: stub.GetWebhookEndpoint(request))
    terminal.print_fields(_as_dict(found), as_json=as_json)


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.option(
    "--grace",
    type=Span(),
    default=timedelta(days=1),
    show_default="1d",
    help="How long the old secret signs too; 0s ends it now.",
)
@json_option
@mesh_options
def rotate(webhook_id: str, mesh: MeshTarget, grace: timedelta, as_json: bool) -> None:
    """Give the endpoint ID a new secret, and show it this once."""
    request = pb.RotateWebhookSecretRequest(name=_name(webhook_id))
    request.grace.FromTimedelta(grace)
    made = _call(mesh, lambda stub: stub.RotateWebhookSecret(request))
    _print_secret(made, as_json=as_json)


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@json_option
@mesh_options
def test(webhook_id: str, mesh: MeshTarget, as_json: bool) -> int:
    """Send an event of type webhook.test to the endpoint ID; fails unless it is received."""
    found = _call(mesh, lambda stub: _tested(stub, webhook_id))
    terminal.print_fields(_delivery_as_dict(found), as_json=as_json)
    return 0 if found.state == pb.WebhookDelivery.STATE_DELIVERED else 1


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.option("--state", type=click.Choice(tuple(_STATES)), default="any", help="Only these.")
@json_option
@mesh_options
def deliveries(webhook_id: str, mesh: MeshTarget, state: str, as_json: bool) -> None:
    """List deliveries to the endpoint ID, the newest first; dead are those that were given up."""
    found = _call(mesh, lambda stub: _all_deliveries(stub, webhook_id, _STATES[state]))
    if as_json:
        click.echo(json.dumps([_delivery_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("event", "type", "of", "state", "attempts", "next", "last error")
    for each in found:
        shown = _delivery_as_dict(each)
        table.add_row(
            str(shown["event"]),
            each.event_type,
            escape(each.data_id),
            str(shown["state"]),
            str(each.attempts),
            day_text(shown_time(each, "next_attempt_time")),
            escape(each.last_error) or "-",
        )
    terminal.console().print(table if found else "there is no delivery")


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.argument("event", required=False)
@click.option("--dead", is_flag=True, help="All that were given up.")
@mesh_options
def resend(webhook_id: str, event: str | None, mesh: MeshTarget, dead: bool) -> None:
    """Send EVENT to the endpoint ID again, with the same webhook-id."""
    if (event is None) is not dead:
        raise click.UsageError("give either an EVENT or --dead")

    async def resent(stub: Any) -> int:
        names = [f"{_name(webhook_id)}/deliveries/{event}"]
        if dead:
            found = await _all_deliveries(stub, webhook_id, _STATES["dead"])
            names = [each.name for each in found]
        for name in names:
            await stub.ResendWebhookDelivery(pb.ResendWebhookDeliveryRequest(name=name))
        return len(names)

    count = _call(mesh, resent)
    click.echo(f"{count} {'delivery is' if count == 1 else 'deliveries are'} sent again")


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@mesh_options
def delete(webhook_id: str, mesh: MeshTarget) -> None:
    """Delete the endpoint ID with its deliveries."""
    request = pb.DeleteWebhookEndpointRequest(name=_name(webhook_id))
    _call(mesh, lambda stub: stub.DeleteWebhookEndpoint(request))
    click.echo(f"webhook endpoint {webhook_id} is deleted")


def _name(webhook_id: str) -> str:
    return f"tenants/-/webhooks/{webhook_id}"


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(WebhookServiceStub(channel)))


async def _all_endpoints(stub: Any, tenant: str) -> list[pb.WebhookEndpoint]:
    async def page(size: int, token: str) -> pb.ListWebhookEndpointsResponse:
        request = pb.ListWebhookEndpointsRequest(
            parent=f"tenants/{tenant}", page_size=size, page_token=token
        )
        answer: pb.ListWebhookEndpointsResponse = await stub.ListWebhookEndpoints(request)
        return answer

    return [each async for found in pages(page) for each in found.webhook_endpoints]


async def _all_deliveries(
    stub: Any, webhook_id: str, state: _State.ValueType
) -> list[pb.WebhookDelivery]:
    async def page(size: int, token: str) -> pb.ListWebhookDeliveriesResponse:
        request = pb.ListWebhookDeliveriesRequest(
            parent=_name(webhook_id), page_size=size, page_token=token, state=state
        )
        answer: pb.ListWebhookDeliveriesResponse = await stub.ListWebhookDeliveries(request)
        return answer

    return [each async for found in pages(page) for each in found.webhook_deliveries]


async def _tested(stub: Any, webhook_id: str) -> pb.WebhookDelivery:
    """Return the delivery after its first attempt, or as it is after _TEST_S."""
    request = pb.TestWebhookEndpointRequest(name=_name(webhook_id))
    found: pb.WebhookDelivery = await stub.TestWebhookEndpoint(request)
    for _ in range(int(_TEST_S / _LOOK_S)):
        if found.HasField("last_attempt_time"):
            break
        await asyncio.sleep(_LOOK_S)
        found = await stub.GetWebhookDelivery(pb.GetWebhookDeliveryRequest(name=found.name))
    return found


def _as_dict(found: pb.WebhookEndpoint) -> dict[str, object]:
    return {
        "id": last_part(found.name),
        "tenant": found.name.split("/")[1],
        "url": found.url,
        "display_name": found.display_name,
        "event_types": list(found.event_types),
        "labels": dict(found.labels),
        "disabled": found.disabled_reason or None,
        "old_secret_ends": shown_time(found, "old_secret_expire_time"),
        "created": shown_time(found, "create_time"),
    }


def _delivery_as_dict(found: pb.WebhookDelivery) -> dict[str, object]:
    return {
        "event": last_part(found.name),
        "type": found.event_type,
        "data_id": found.data_id,
        "state": next((name for name, value in _STATES.items() if value == found.state), None),
        "attempts": found.attempts,
        "created": shown_time(found, "create_time"),
        "last_attempt": shown_time(found, "last_attempt_time"),
        "next_attempt": shown_time(found, "next_attempt_time"),
        "last_status": found.last_status or None,
        "last_error": found.last_error or None,
    }


def _print_secret(made: pb.CreateWebhookEndpointResponse, *, as_json: bool) -> None:
    shown = _as_dict(made.webhook_endpoint)
    if as_json:
        click.echo(json.dumps({**shown, "secret": made.secret}, indent=1))
        return
    click.echo(made.secret)
    click.echo(
        f"This is the secret of webhook endpoint {shown['id']} of tenant {shown['tenant']}."
        " It is shown this once: store it now.",
        err=True,
    )
