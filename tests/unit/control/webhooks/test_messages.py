"""What is sent is what Standard Webhooks and OpenAI's client verify; and what an answer means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from headrace_control.base.webhooks import WebhookEvent
from headrace_control.webhooks.messages import (
    DISABLED_BY_ENDPOINT,
    RETRY_S,
    body_of,
    headers_of,
    outcome_of,
)
from headrace_control.webhooks.sealing import new_secret

NOW = datetime.now(UTC).replace(microsecond=0)
EVENT = WebhookEvent("evt_1", "acme", "batch.completed", "batch_8f3c", NOW)
BODY = body_of(EVENT)


def test_the_body_is_an_event_of_openai() -> None:
    assert json.loads(BODY) == {
        "id": "evt_1",
        "object": "event",
        "created_at": int(NOW.timestamp()),
        "type": "batch.completed",
        "data": {"id": "batch_8f3c"},
    }


def test_both_secrets_verify_while_one_is_rotated() -> None:
    new, old = new_secret(), new_secret()
    headers = headers_of("evt_1", BODY, [new, old], unix_s=int(NOW.timestamp()))
    for secret in (new, old):
        assert Webhook(secret).verify(BODY, headers)
        client = openai.OpenAI(api_key="none", webhook_secret=secret)
        event: Any = client.webhooks.unwrap(BODY, headers)
        assert (event.type, event.data.id) == ("batch.completed", "batch_8f3c")
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY + b" ", headers)


@given(st.integers(1, 12), st.sampled_from([0, 301, 400, 404, 429, 500, 503]), st.floats(0, 0.99))
def test_what_fails_is_sent_again_over_more_than_a_day_and_then_given_up(
    attempts: int, status: int, chance: float
) -> None:
    found = outcome_of(status, "", attempts=attempts, now=NOW, chance=chance)
    assert found.error
    assert not found.disables
    if attempts > len(RETRY_S):
        assert found.next_time is None
        return
    assert found.next_time is not None
    wait = (found.next_time - NOW) / timedelta(seconds=RETRY_S[attempts - 1])
    assert 1 <= wait <= 1.1


def test_the_last_attempt_is_more_than_a_day_after_the_first() -> None:
    assert sum(RETRY_S) > 24 * 3600


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_delivery(status: int) -> None:
    found = outcome_of(status, "", attempts=1, now=NOW, chance=0)
    assert (found.error, found.next_time, found.disables) == ("", None, "")


def test_410_disables_the_endpoint() -> None:
    found = outcome_of(410, "", attempts=1, now=NOW, chance=0)
    assert (found.disables, found.next_time) == (DISABLED_BY_ENDPOINT, None)
