"""What is sent: the body and the headers of an attempt, by Standard Webhooks. Pure."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from headrace_control.base.webhooks import DeliveryOutcome, WebhookEvent
from headrace_control.webhooks.sealing import PREFIX

RETRY_S = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600)
"""Time from a failed attempt to the next; after the last the delivery is given up."""
JITTER = 0.1
"""Most by which these are longer, as a part of them: many deliveries that failed at once come back
spread out."""
_GONE = 410
DISABLED_BY_ENDPOINT = "it answered 410 Gone"


def body_of(event: WebhookEvent) -> bytes:
    """Return the same bytes for each attempt."""
    return json.dumps(
        {
            "id": event.event_id,
            "object": "event",
            "created_at": int(event.create_time.timestamp()),
            "type": event.type,
            "data": {"id": event.data_id},
        },
        separators=(",", ":"),
    ).encode()


def headers_of(
    event_id: str, body: bytes, secrets: Iterable[str], *, unix_s: int
) -> dict[str, str]:
    """Return the headers of an attempt at a time, signed with each secret."""
    content = f"{event_id}.{unix_s}.".encode() + body
    return {
        "content-type": "application/json",
        "user-agent": "headrace-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def outcome_of(
    status: int, error: str, *, attempts: int, now: datetime, chance: float
) -> DeliveryOutcome:
    """Return what follows from an attempt.

    Args:
        status: of the answer; 0: there was none.
        error: why there was none.
        attempts: how many there were, with this one.
        chance: random, in [0, 1).
    """
    if 200 <= status < 300:
        return DeliveryOutcome(status)
    if status == _GONE:
        return DeliveryOutcome(status, DISABLED_BY_ENDPOINT, disables=DISABLED_BY_ENDPOINT)
    error = error or _error_of(status)
    if attempts > len(RETRY_S):
        return DeliveryOutcome(status, error)
    wait_s = RETRY_S[attempts - 1] * (1 + JITTER * chance)
    return DeliveryOutcome(status, error, next_time=now + timedelta(seconds=wait_s))


def _error_of(status: int) -> str:
    if 300 <= status < 400:
        return f"it answered {status}: redirects are not followed, set its url to their target"
    return f"it answered {status}; any 2xx is a delivery"
