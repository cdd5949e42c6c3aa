"""Tenants and plans are kept, and published with their limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import FailedPrecondition, InvalidRequest, ResourceExists, ResourceNotFound
from headrace.internal.v1.access_pb2 import KeeperLoss, TenantRow
from headrace.v1.common_pb2 import Priority
from headrace_control.base.records import Key, Limits, ModelLimits, Plan, Tenant
from headrace_control.store import PageOptions, Store
from helpers.control_store import (
    ROOT,
    TestClock,
    make_key,
    make_member,
    open_session,
    replay,
)


async def published(store: Store, tenant: str) -> TenantRow:
    return TenantRow.FromString((await replay(store))["tenants"][tenant])


async def test_a_tenant_is_returned_as_it_was_created(store: Store, clock: TestClock) -> None:
    await store.plans.create(Plan("gold"), by=ROOT)
    new = Tenant(
        "acme",
        display_name="Acme 公司",
        plan="gold",
        default_priority=Priority.PRIORITY_BULK,
        highest_priority=Priority.PRIORITY_STANDARD,
        weight=2.5,
        networks=("10.0.0.0/8", "2001:db8::/32"),
        disabled=True,
        model_limits=(ModelLimits("valley", Limits(requests_per_day=7)),),
        time_zone="Europe/Zurich",
        currency="CHF",
        allow_on_keeper_loss=True,
        response_cache=True,
        forbid_upstream_engines=True,
    )
    created = await store.tenants.create(new, by=ROOT)
    assert created == replace(new, create_time=clock.now, update_time=clock.now)
    assert await store.tenants.get("acme") == created
    row = await published(store, "acme")
    assert (row.time_zone, row.currency) == ("Europe/Zurich", "CHF")
    assert (row.on_keeper_loss, row.response_cache, row.forbid_upstream_engines) == (
        KeeperLoss.KEEPER_LOSS_ALLOW,
        True,
        True,
    )
    assert [(m.model, m.limits.requests_per_day) for m in row.model_limits] == [("valley", 7)]


async def test_the_plan_free_is_there_and_no_tenants(store: Store) -> None:
    free = await store.plans.get("free")
    limits = Limits(requests_per_day=1000, requests_per_minute=20, batch_tokens_per_day=1_000_000)
    assert free.limits == limits
    assert (await store.tenants.create(Tenant("acme"), by=ROOT)).plan == ""


async def test_an_update_changes_what_its_function_changes(store: Store, clock: TestClock) -> None:
    created = await store.tenants.create(Tenant("acme", weight=3), by=ROOT)
    clock.advance(60)
    updated = await store.tenants.update("acme", lambda t: replace(t, disabled=True), by=ROOT)
    assert updated == replace(created, disabled=True, update_time=clock.now)
    row = await published(store, "acme")
    assert (row.disabled, row.weight) == (True, 3)


async def test_an_update_that_is_refused_leaves_no_trace(store: Store) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    await replay(store)
    events = (await store.audit.verify_chain()).events

    def refuse(tenant: Tenant) -> Tenant:
        raise InvalidRequest("weight is -1")

    with pytest.raises(InvalidRequest):
        await store.tenants.update("acme", refuse, by=ROOT)
    assert await store.outbox.pending() == ()
    assert (await store.audit.verify_chain()).events == events


async def test_a_plans_limits_reach_the_rows_of_its_tenants(store: Store) -> None:
    await store.plans.create(Plan("gold", limits=Limits(requests_per_minute=10)), by=ROOT)
    await store.tenants.create(Tenant("acme", plan="gold"), by=ROOT)
    await store.tenants.create(Tenant("free"), by=ROOT)
    assert (await published(store, "acme")).limits.requests_per_minute == 10
    more = Limits(requests_per_minute=99, tokens_per_day=2**40)
    await store.plans.update("gold", lambda plan: replace(plan, limits=more), by=ROOT)
    pending = await store.outbox.pending()
    assert [row.key for row in pending] == ["acme"]
    row = await published(store, "acme")
    assert (row.limits.requests_per_minute, row.limits.tokens_per_day) == (99, 2**40)


async def test_a_plan_in_use_is_not_deleted(store: Store) -> None:
    await store.plans.create(Plan("gold"), by=ROOT)
    await store.tenants.create(Tenant("acme", plan="gold"), by=ROOT)
    with pytest.raises(FailedPrecondition, match="acme among them"):
        await store.plans.delete("gold", by=ROOT)
    await store.tenants.update("acme", lambda t: replace(t, plan=""), by=ROOT)
    await store.plans.delete("gold", by=ROOT)
    with pytest.raises(ResourceNotFound):
        await store.plans.get("gold")


async def test_a_tenant_of_an_unknown_plan_is_refused(store: Store) -> None:
    with pytest.raises(FailedPrecondition, match="plan gold not found"):
        await store.tenants.create(Tenant("acme", plan="gold"), by=ROOT)
    await store.tenants.create(Tenant("acme"), by=ROOT)
    with pytest.raises(FailedPrecondition, match="plan gold not found"):
        await store.tenants.update("acme", lambda t: replace(t, plan="gold"), by=ROOT)


async def test_a_tenant_with_keys_is_deleted_only_by_force_and_takes_all_along(
    store: Store, clock: TestClock
) -> None:
    person = await make_member(store, "acme", "ann@example.com")
    await make_key(store, Key("k1", "acme"))
    await make_key(store, Key("k2", "acme", person=person.person_id))
    await make_key(store, Key("k3", "other"))
    await open_session(store, "acme", person=person.person_id, expires=clock.after(60))
    await open_session(store, "acme", key_id="k1", expires=clock.after(60))
    tables = await replay(store)
    with pytest.raises(FailedPrecondition, match="2 keys"):
        await store.tenants.delete("acme", by=ROOT)
    await store.tenants.delete("acme", force=True, by=ROOT)
    tables = await replay(store, tables)
    assert (list(tables["keys"]), list(tables["tenants"]), tables["sessions"]) == (
        ["k3"],
        ["other"],
        {},
    )
    assert tables == await store.outbox.all_rows()
    assert await store.people.memberships(person.person_id) == ()


async def test_names_are_unique_and_are_names(store: Store) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    with pytest.raises(ResourceExists):
        await store.tenants.create(Tenant("acme"), by=ROOT)
    await store.tenants.create(Tenant("Acme"), by=ROOT)
    for name in ("", ".acme", "a" * 65, "a b", "a/b", "é", "acme\n", "a'; drop table tenants; --"):
        with pytest.raises(InvalidRequest, match="1 to 64"):
            await store.tenants.create(Tenant(name), by=ROOT)
        with pytest.raises(InvalidRequest, match="1 to 64"):
            await store.plans.create(Plan(name), by=ROOT)
        with pytest.raises(ResourceNotFound):
            await store.tenants.get(name)


async def test_pages_are_in_order_and_go_on_where_the_last_one_ended(store: Store) -> None:
    names = ["B", "a", "a-", "a.b", "a1", "aB", "a_", "ab", "b", "z"]
    for name in reversed(names):
        await store.tenants.create(Tenant(name), by=ROOT)
    seen, token = [], ""
    while True:
        page = await store.tenants.list(PageOptions(3, token))
        seen += [each.tenant_id for each in page.items]
        if seen == names[:3]:
            await store.tenants.create(Tenant("A"), by=ROOT)
            await store.tenants.delete("a", by=ROOT)
        if not (token := page.next_page_token):
            break
    # One that came and one that went before the place of the page change nothing behind it.
    assert seen == sorted(names)


@pytest.mark.parametrize("token", ["x", "bnVsbA", "W10", "WyJrZXlzIiwgMSwgImEiXQ", "é", "A" * 5000])
async def test_a_page_token_that_was_made_up_is_refused(store: Store, token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        await store.tenants.list(PageOptions(3, token))
