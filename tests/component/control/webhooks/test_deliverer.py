"""Deliveries over real sockets and a real database: each endpoint for itself, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from standardwebhooks import Webhook

from headrace.auth.networks import parse_networks
from headrace_control.base.webhooks import DeliveryState, WebhookDelivery, WebhookEndpoint
from headrace_control.store import Store
from headrace_control.webhooks.deliverer import AT_ONCE, Deliverer
from headrace_control.webhooks.sealing import SecretSealer, new_secret
from headrace_control.webhooks.sender import WebhookSender
from helpers.control_store import ROOT
from helpers.eventually import eventually
from helpers.http_server import HttpServer, answer, http_server

KEYS = SecretSealer([Fernet.generate_key()])
SECRET = new_secret()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path}/control.db", upgrade=True)
    yield opened
    await opened.close()


@asynccontextmanager
async def delivering(store: Store, sealer: SecretSealer = KEYS) -> AsyncIterator[None]:
    async with WebhookSender(parse_networks(["127.0.0.0/8"]), timeout_s=2) as sender:
        deliverer = Deliverer(store.webhook_deliveries, sender, lambda: sealer, store.now)
        running = asyncio.create_task(deliverer.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def make_endpoint(store: Store, server: HttpServer) -> WebhookEndpoint:
    new = WebhookEndpoint("", "acme", url=f"http://127.0.0.1:{server.port}/hooks")
    sealed = KEYS.seal(SECRET)
    return await store.webhook_endpoints.create(new, sealed, make_tenant=True, by=ROOT)


async def ping(store: Store, endpoint: WebhookEndpoint) -> WebhookDelivery:
    return await store.webhook_deliveries.test("acme", endpoint.endpoint_id, by=ROOT)


async def attempted(store: Store, delivery: WebhookDelivery) -> WebhookDelivery:
    """Return a delivery once it was tried."""
    name = "acme", delivery.endpoint_id, delivery.event.event_id

    async def is_tried() -> bool:
        return (await store.webhook_deliveries.get(*name)).attempts > delivery.attempts

    await eventually(is_tried)
    return await store.webhook_deliveries.get(*name)


async def test_an_event_is_delivered_and_can_be_verified(store: Store) -> None:
    async with http_server(answer(200)) as server, delivering(store):
        endpoint = await make_endpoint(store, server)
        found = await attempted(store, await ping(store, endpoint))
    assert (found.state, found.last_status) == (DeliveryState.DELIVERED, 200)
    (asked,) = server.asked
    assert asked.headers["webhook-id"] == found.event.event_id
    event = Webhook(SECRET).verify(asked.body, asked.headers)
    assert (event["type"], event["data"]["id"]) == ("webhook.test", endpoint.endpoint_id)


async def test_what_fails_waits_for_its_next_attempt(store: Store) -> None:
    async with http_server(answer(500)) as server, delivering(store):
        endpoint = await make_endpoint(store, server)
        found = await attempted(store, await ping(store, endpoint))
    assert (found.state, found.last_status) == (DeliveryState.PENDING, 500)
    assert found.next_time is not None
    assert found.last_attempt_time is not None
    assert 5 <= (found.next_time - found.last_attempt_time).total_seconds() < 6


async def test_410_ends_all(store: Store) -> None:
    async with http_server(answer(410)) as server, delivering(store):
        endpoint = await make_endpoint(store, server)
        found = await attempted(store, await ping(store, endpoint))
        assert found.state is DeliveryState.DEAD
        assert (await store.webhook_endpoints.get("acme", endpoint.endpoint_id)).disabled


async def test_a_silent_endpoint_delays_no_other(store: Store) -> None:
    """Far more deliveries wait for the silent one than are sent at once, and they were first."""
    async with http_server(None) as silent, http_server(answer(200)) as quick:
        dead, alive = await make_endpoint(store, silent), await make_endpoint(store, quick)
        for _ in range(4 * AT_ONCE):
            await ping(store, dead)
        waits = await ping(store, alive)
        async with delivering(store):
            found = await attempted(store, waits)
            assert found.state is DeliveryState.DELIVERED
            assert len(silent.asked) <= AT_ONCE


async def test_a_secret_that_cannot_be_opened_stops_its_endpoint_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = SecretSealer([Fernet.generate_key()])
    async with http_server(answer(200)) as server:
        broken = await make_endpoint(store, server)
        stuck = await ping(store, broken)
        new = WebhookEndpoint("", "acme", url=f"http://127.0.0.1:{server.port}/other")
        works = await store.webhook_endpoints.create(new, other.seal(SECRET), by=ROOT)
        waits = await ping(store, works)
        async with delivering(store, other):
            assert (await attempted(store, waits)).state is DeliveryState.DELIVERED
    name = "acme", broken.endpoint_id, stuck.event.event_id
    assert (await store.webhook_deliveries.get(*name)).attempts == 0
    assert "cannot be decrypted" in str([vars(each) for each in caplog.records])
    assert SECRET not in caplog.text
