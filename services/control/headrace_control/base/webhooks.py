"""Webhooks as the rest of control sees them: types of events, endpoints and deliveries. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from headrace_control.base.records import NOTHING

BATCH_COMPLETED, BATCH_FAILED = "batch.completed", "batch.failed"
BATCH_EXPIRED, BATCH_CANCELLED = "batch.expired", "batch.cancelled"
RESPONSE_COMPLETED, RESPONSE_FAILED = "response.completed", "response.failed"
RESPONSE_CANCELLED, RESPONSE_INCOMPLETE = "response.cancelled", "response.incomplete"
BUDGET_THRESHOLD_REACHED = "budget.threshold_reached"
WEBHOOK_TEST = "webhook.test"

EVENT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        BATCH_COMPLETED: "batch",
        BATCH_FAILED: "batch",
        BATCH_EXPIRED: "batch",
        BATCH_CANCELLED: "batch",
        RESPONSE_COMPLETED: "background request that has its whole answer",
        RESPONSE_INCOMPLETE: "background request that reached its limit of tokens, time or quota",
        RESPONSE_FAILED: "background request that ended with an error",
        RESPONSE_CANCELLED: "background request that was cancelled",
        BUDGET_THRESHOLD_REACHED: "budget of which 50, 80 or 100 % are used: day or month, the"
        " date it began, and the percentage, as month/2026-11-01/80; of a key's, behind keys/ID/",
        WEBHOOK_TEST: "the endpoint itself; sent on demand alone, to an endpoint of any types",
    }
)
"""Each with what `data.id` is the id of. Names of OpenAI where OpenAI has one."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A signing secret, encrypted."""

    sealed: str = field(repr=False)
    expire_time: datetime | None = None
    """When it ends, after a rotation; None: with the endpoint."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    endpoint_id: str
    tenant: str
    url: str = ""
    display_name: str = ""
    event_types: tuple[str, ...] = ()
    """Empty: all."""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    secrets: tuple[SealedSecret, ...] = ()
    """The newest first; two while a rotation goes on."""
    disabled: str = ""
    """Why it is disabled; empty: it is enabled."""
    create_time: datetime | None = None
    """Set by the store, as `update_time`."""
    update_time: datetime | None = None

    def valid_secrets(self, now: datetime) -> tuple[SealedSecret, ...]:
        return tuple(s for s in self.secrets if s.expire_time is None or now < s.expire_time)


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up, and kept so that it can be resent."""


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    event_id: str
    """evt_..., the webhook-id of each of its deliveries."""
    tenant: str
    type: str
    data_id: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """What became of an event at an endpoint."""

    event: WebhookEvent
    endpoint_id: str
    state: DeliveryState
    attempts: int = 0
    """Since it was added or resent."""
    next_time: datetime | None = None
    """When it is sent next; None unless it is pending."""
    last_attempt_time: datetime | None = None
    deliver_time: datetime | None = None
    last_status: int = 0
    """HTTP status of the last attempt; 0: there was none."""
    last_error: str = ""
    """Why the last attempt failed, or why it is dead."""


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of one attempt."""

    status: int = 0
    """HTTP status; 0: there was none."""
    error: str = ""
    """Why it failed; empty: it succeeded."""
    next_time: datetime | None = None
    """When it is sent again; None: it is delivered, or given up."""
    disables: str = ""
    """Why its endpoint is disabled; empty: it is not."""
