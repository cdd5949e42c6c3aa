"""The types of events that webhooks send, by OpenAI's names where OpenAI has one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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
        " date it began, and the percentage, as month/2026-11-01/80",
        WEBHOOK_TEST: "the endpoint itself; sent on demand alone, to an endpoint of any types",
    }
)
"""Each with what `data.id` is the id of."""
