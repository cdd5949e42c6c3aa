"""Endpoints, events and deliveries in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from headrace.errors import FailedPrecondition, ResourceNotFound
from headrace_control.base.records import Key
from headrace_control.base.webhooks import (
    BATCH_COMPLETED,
    RESPONSE_COMPLETED,
    DeliveryOutcome,
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
)
from headrace_control.store import PageOptions, Store
from headrace_control.store.database.opening import open_engine
from headrace_control.store.database.transactions import Database
from headrace_control.store.webhooks.endpoints import MAX_ENDPOINTS
from headrace_control.store.webhooks.events import add_event
from helpers.control_store import ROOT, TestClock, make_key

URL = "https://example.com/"


async def make_endpoint(
    store: Store, *event_types: str, tenant: str = "acme", disabled: str = ""
) -> WebhookEndpoint:
    new = WebhookEndpoint("", tenant, url=URL, event_types=event_types, disabled=disabled)
    return await store.webhook_endpoints.create(new, "sealed-1", make_tenant=True, by=ROOT)


@pytest.fixture
async def database(database_url: str, clock: TestClock, store: Store) -> AsyncIterator[Database]:
    """The store's, for changes of other parts of it."""
    opened = Database(open_engine(database_url), clock)
    yield opened
    await opened.engine.dispose()


async def add(database: Database, tenant: str, event_type: str, unique_key: str) -> str:
    """Add an event as other changes of the store do."""
    async with database.changing(ROOT) as change:
        return await add_event(
            change.connection, tenant, event_type, "batch_1", unique_key, change.now_ms
        )


async def due(store: Store, endpoint: WebhookEndpoint) -> list[WebhookDelivery]:
    found = await store.webhook_deliveries.due(endpoint.endpoint_id, 100)
    return [] if found is None else list(found[1])


async def states(store: Store, endpoint: WebhookEndpoint) -> list[DeliveryState]:
    page = await store.webhook_deliveries.list(endpoint.tenant, endpoint.endpoint_id)
    return [each.state for each in page.items]


async def test_an_event_goes_once_to_each_endpoint_that_wants_it(
    store: Store, database: Database, clock: TestClock
) -> None:
    everything, batches = await make_endpoint(store), await make_endpoint(store, BATCH_COMPLETED)
    others = [
        await make_endpoint(store, RESPONSE_COMPLETED),
        await make_endpoint(store, tenant="other"),
        await make_endpoint(store, disabled="by hand"),
    ]
    event_id = await add(database, "acme", BATCH_COMPLETED, "batch_1/completed")
    assert event_id.startswith("evt_")
    assert await add(database, "acme", BATCH_COMPLETED, "batch_1/completed") == ""
    for endpoint in (everything, batches):
        (delivery,) = await due(store, endpoint)
        assert (delivery.event.event_id, delivery.event.data_id) == (event_id, "batch_1")
        assert (delivery.event.create_time, delivery.attempts) == (clock.now, 0)
    for endpoint in others:
        assert await due(store, endpoint) == []
    # The same words of another tenant are another fact.
    assert await add(database, "other", BATCH_COMPLETED, "batch_1/completed")


async def test_an_event_that_no_endpoint_wants_is_not_kept(
    store: Store, database: Database
) -> None:
    assert await add(database, "nobody", BATCH_COMPLETED, "b") == ""
    endpoint = await make_endpoint(store, RESPONSE_COMPLETED)
    assert await add(database, "acme", BATCH_COMPLETED, "b") == ""
    assert await states(store, endpoint) == []


async def test_attempts_are_recorded_once_and_the_next_is_due_in_its_time(
    store: Store, database: Database, clock: TestClock
) -> None:
    endpoint = await make_endpoint(store)
    await add(database, "acme", BATCH_COMPLETED, "b")
    (delivery,) = await due(store, endpoint)
    again = DeliveryOutcome(503, "it answered 503", next_time=clock.after(5))
    assert await store.webhook_deliveries.record(delivery, again)
    assert not await store.webhook_deliveries.record(delivery, again)
    assert await due(store, endpoint) == []
    assert await store.webhook_deliveries.due_endpoints((), 10) == ()
    clock.advance(5)
    assert await store.webhook_deliveries.due_endpoints((), 10) == (endpoint.endpoint_id,)
    assert await store.webhook_deliveries.due_endpoints([endpoint.endpoint_id], 10) == ()
    (delivery,) = await due(store, endpoint)
    assert (delivery.attempts, delivery.last_status) == (1, 503)
    assert await store.webhook_deliveries.record(delivery, DeliveryOutcome(200))
    assert await states(store, endpoint) == [DeliveryState.DELIVERED]
    assert await store.webhook_deliveries.counts() == (0, 0)


async def test_a_dead_letter_is_kept_listed_and_resent(
    store: Store, database: Database, clock: TestClock
) -> None:
    endpoint = await make_endpoint(store)
    event_id = await add(database, "acme", BATCH_COMPLETED, "b")
    (delivery,) = await due(store, endpoint)
    await store.webhook_deliveries.record(delivery, DeliveryOutcome(500, "it answered 500"))
    assert await store.webhook_deliveries.counts() == (0, 1)
    page = await store.webhook_deliveries.list(
        "acme", endpoint.endpoint_id, state=DeliveryState.DEAD
    )
    assert [each.event.event_id for each in page.items] == [event_id]
    clock.advance(60)
    resent = await store.webhook_deliveries.resend("acme", endpoint.endpoint_id, event_id, by=ROOT)
    assert (resent.state, resent.attempts) == (DeliveryState.PENDING, 0)
    assert [each.event.event_id for each in await due(store, endpoint)] == [event_id]


async def test_410_disables_the_endpoint_and_gives_up_what_waits(
    store: Store, database: Database
) -> None:
    endpoint = await make_endpoint(store)
    for key in "ab":
        await add(database, "acme", BATCH_COMPLETED, key)
    first, second = await due(store, endpoint)
    gone = DeliveryOutcome(410, "gone", disables="gone")
    assert await store.webhook_deliveries.record(first, gone)
    found = await store.webhook_endpoints.get("acme", endpoint.endpoint_id)
    assert found.disabled == "gone"
    assert await states(store, endpoint) == [DeliveryState.DEAD] * 2
    # The other one was under way: what came of it changes nothing.
    assert not await store.webhook_deliveries.record(second, DeliveryOutcome(200))
    assert await add(database, "acme", BATCH_COMPLETED, "c") == ""
    with pytest.raises(FailedPrecondition, match="disabled: gone"):
        await store.webhook_deliveries.test("acme", endpoint.endpoint_id, by=ROOT)


async def test_a_rotation_keeps_two_secrets_until_the_old_one_ends(
    store: Store, clock: TestClock
) -> None:
    endpoint = await make_endpoint(store)
    name = "acme", endpoint.endpoint_id
    await store.webhook_endpoints.rotate(*name, "sealed-2", old_ends=clock.after(60), by=ROOT)
    rotated = await store.webhook_endpoints.rotate(
        *name, "sealed-3", old_ends=clock.after(60), by=ROOT
    )
    assert [s.sealed for s in rotated.valid_secrets(clock.now)] == ["sealed-3", "sealed-2"]
    assert [s.sealed for s in rotated.valid_secrets(clock.after(60))] == ["sealed-3"]
    rotated = await store.webhook_endpoints.rotate(*name, "sealed-4", old_ends=clock.now, by=ROOT)
    assert [s.sealed for s in rotated.secrets] == ["sealed-4"]
    assert await store.webhook_endpoints.seal_again(lambda sealed: f"new-{sealed}") == 1
    assert (await store.webhook_endpoints.get(*name)).secrets[0].sealed == "new-sealed-4"
    assert "sealed" not in str((await store.audit.list()).items)


async def test_old_events_are_deleted_unless_they_wait(
    store: Store, database: Database, clock: TestClock
) -> None:
    endpoint = await make_endpoint(store)
    for key in "ab":
        await add(database, "acme", BATCH_COMPLETED, key)
    first, _ = await due(store, endpoint)
    await store.webhook_deliveries.record(first, DeliveryOutcome(200))
    clock.advance(timedelta(days=31).total_seconds())
    assert await store.webhook_deliveries.delete_old() == 1
    assert await store.webhook_deliveries.delete_old() == 0
    assert await states(store, endpoint) == [DeliveryState.PENDING]


async def test_an_endpoint_is_listed_bounded_and_deleted_with_its_deliveries(
    store: Store, database: Database
) -> None:
    made = [await make_endpoint(store) for _ in range(MAX_ENDPOINTS)]
    with pytest.raises(FailedPrecondition, match="the most"):
        await make_endpoint(store)
    await add(database, "acme", BATCH_COMPLETED, "b")
    page = await store.webhook_endpoints.list("acme", options=PageOptions(15))
    rest = await store.webhook_endpoints.list("acme", options=PageOptions(15, page.next_page_token))
    assert len(page.items) + len(rest.items) == MAX_ENDPOINTS
    await store.webhook_endpoints.delete("acme", made[0].endpoint_id, by=ROOT)
    with pytest.raises(ResourceNotFound):
        await store.webhook_endpoints.get("acme", made[0].endpoint_id)
    with pytest.raises(ResourceNotFound):
        await store.webhook_deliveries.list("other", made[1].endpoint_id)


async def test_a_deleted_tenant_takes_its_webhooks_along(store: Store, database: Database) -> None:
    await make_key(store, Key("k1", "acme"))
    await make_endpoint(store)
    await add(database, "acme", BATCH_COMPLETED, "b")
    await store.tenants.delete("acme", force=True, by=ROOT)
    assert (await store.webhook_endpoints.list()).items == ()
    assert await store.webhook_deliveries.counts() == (0, 0)
    assert await store.integrity_faults() == ()
