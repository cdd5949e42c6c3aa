"""Webhook endpoints and deliveries as messages of the API, and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from headrace.admin.v1 import webhooks_pb2 as pb
from headrace.auth.networks import Networks
from headrace.errors import InvalidRequest
from headrace_control.api.tenancy import fields
from headrace_control.base.webhooks import (
    EVENT_TYPES,
    WEBHOOK_TEST,
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
)
from headrace_control.webhooks.addresses import check_url

ENDPOINT_NAME = "tenants/{tenant}/webhooks/{webhook}"
DELIVERY_NAME = f"{ENDPOINT_NAME}/deliveries/{{event}}"
ENDPOINT_FIELDS = frozenset({"url", "display_name", "event_types", "labels", "disabled"})
DISABLED_BY_CALLER = "an administrator has disabled it"
_STATES = {
    DeliveryState.PENDING: pb.WebhookDelivery.STATE_PENDING,
    DeliveryState.DELIVERED: pb.WebhookDelivery.STATE_DELIVERED,
    DeliveryState.DEAD: pb.WebhookDelivery.STATE_DEAD,
}


def endpoint_message(endpoint: WebhookEndpoint, *, now: datetime) -> pb.WebhookEndpoint:
    valid = endpoint.valid_secrets(now)
    return pb.WebhookEndpoint(
        name=f"tenants/{endpoint.tenant}/webhooks/{endpoint.endpoint_id}",
        url=endpoint.url,
        display_name=endpoint.display_name,
        event_types=endpoint.event_types,
        labels=endpoint.labels,
        disabled=bool(endpoint.disabled),
        disabled_reason=endpoint.disabled,
        old_secret_expire_time=fields.timestamp(valid[-1].expire_time),
        create_time=fields.timestamp(endpoint.create_time),
        update_time=fields.timestamp(endpoint.update_time),
    )


def endpoint_in(
    message: pb.WebhookEndpoint, before: WebhookEndpoint, networks: Networks
) -> WebhookEndpoint:
    """Return the endpoint of `before` with the message's changeable fields.

    Raises:
        InvalidRequest: a field is missing or out of its range.
    """
    name = fields.text(
        message.display_name, "webhook_endpoint.display_name", longest=fields.MAX_DISPLAY_NAME
    )
    return replace(
        before,
        url=check_url(message.url, networks, field="webhook_endpoint.url"),
        display_name=name,
        event_types=_event_types(message.event_types),
        labels=fields.labels(message.labels, "webhook_endpoint.labels"),
        disabled=(before.disabled or DISABLED_BY_CALLER) if message.disabled else "",
    )


def delivery_message(tenant: str, delivery: WebhookDelivery) -> pb.WebhookDelivery:
    event = delivery.event
    endpoint = f"tenants/{tenant}/webhooks/{delivery.endpoint_id}"
    return pb.WebhookDelivery(
        name=f"{endpoint}/deliveries/{event.event_id}",
        event_type=event.type,
        data_id=event.data_id,
        state=_STATES[delivery.state],
        attempts=delivery.attempts,
        next_attempt_time=fields.timestamp(delivery.next_time),
        last_attempt_time=fields.timestamp(delivery.last_attempt_time),
        deliver_time=fields.timestamp(delivery.deliver_time),
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        create_time=fields.timestamp(event.create_time),
    )


def state_in(state: pb.WebhookDelivery.State.ValueType) -> DeliveryState | None:
    """Return the state that a list is restricted to; None: all.

    Raises:
        InvalidRequest: there is no such state.
    """
    if not state:
        return None
    for known, value in _STATES.items():
        if value == state:
            return known
    raise InvalidRequest(f"state is {state}, which is none of WebhookDelivery.State", field="state")


def _event_types(values: Sequence[str]) -> tuple[str, ...]:
    known = [each for each in EVENT_TYPES if each != WEBHOOK_TEST]
    for each in values:
        if each not in known:
            raise InvalidRequest(
                f"webhook_endpoint.event_types has {each[:64]!r}; types are {', '.join(known)}",
                field="webhook_endpoint.event_types",
            )
    return tuple(each for each in known if each in values)
