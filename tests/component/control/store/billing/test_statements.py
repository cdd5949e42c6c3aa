"""Each row of usage is in one statement, and a closed one never changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.errors import FailedPrecondition, InvalidRequest, ResourceNotFound
from headrace_control.base.accounts.statement import Account, Line, content
from headrace_control.base.records import Price, Tenant
from headrace_control.store import Store
from headrace_control.store.usage.sums import UsageFilter
from helpers.control_store import ROOT, TestClock
from helpers.statements import CENT, Recorder, close, counts, go_to, statement

pytestmark = pytest.mark.usefixtures("acme")


async def test_a_statement_adds_up_to_its_rows(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    for n in range(30):
        await record(
            "2026-09-02T10:00",
            model=("valley", "ridge")[n % 2],
            batch_id="b1" if n % 3 == 0 else "",
            input_tokens=1000 + n,
            cached_input_tokens=n,
            output_tokens=77 * n,
        )
    await store.prices.create(Price("valley", "USD", clock.after(35 * 86400), 1, 1, 1), by=ROOT)
    await record("2026-09-29T00:00", model="valley")
    await record("2026-09-29T00:00", model="unpriced")
    go_to(clock, "2026-09-30")
    found = await statement(store, "2026-09")
    rows = (await store.usage_rows.page("acme")).items
    assert found.exact_nanos == sum(row["cost_nanos"] for row in rows)
    assert sum(line.requests for line in found.lines) == 32
    assert [(line.model, line.batch, line.input_nanos) for line in found.lines] == [
        ("ridge", False, 7),
        ("ridge", True, 7),
        ("unpriced", False, 0),
        ("valley", False, 1),
        ("valley", False, 150_000),
        ("valley", True, 150_000),
    ]
    assert found.total_nanos % CENT == 0
    assert abs(found.total_nanos - found.exact_nanos) <= len(found.lines) * CENT // 2
    assert (found.is_open, found.as_of) == (True, clock.now)


async def test_keys_have_lines_of_their_own_if_that_is_chosen(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    for key in ("k1", "k2", "k1"):
        await record("2026-09-02", key_id=key)
    go_to(clock, "2026-09-30")
    assert counts(await statement(store, "2026-09")) == [("", "valley", 3)]
    found = await statement(store, "2026-09", by_key=True)
    assert [(line.key_id, line.requests) for line in found.lines] == [("k1", 2), ("k2", 1)]


async def test_a_month_is_that_of_the_tenants_time_zone(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await store.tenants.update("acme", lambda t: replace(t, time_zone="Asia/Tokyo"), by=ROOT)
    await record("2026-08-31T14:59:59.999")
    await record("2026-08-31T15:00")
    await record("2026-09-30T14:59:59.999")
    await record("2026-09-30T15:00")
    go_to(clock, "2026-10-02")
    for month, requests in (("2026-08", 1), ("2026-09", 2), ("2026-10", 1)):
        assert counts(await statement(store, month)) == [("", "valley", requests)]


async def test_a_closed_month_never_changes_and_what_is_late_corrects_it(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-20")
    await record("2026-09-20", output_tokens=1)
    go_to(clock, "2026-09-02")
    august = await close(store, "2026-08")
    assert (august.sequence, counts(august)) == (1, [("", "valley", 1)])
    await record("2026-08-30", output_tokens=2)
    await record("2026-08-31", output_tokens=4, model="ridge")
    assert await statement(store, "2026-08") == august
    assert await close(store, "2026-08") == august
    go_to(clock, "2026-10-01")
    assert counts(await statement(store, "2026-09")) == [
        ("", "valley", 1),
        ("2026-08", "ridge", 1),
        ("2026-08", "valley", 1),
    ]
    september = await close(store, "2026-09")
    assert (september.sequence, september.begin_ms) == (2, august.end_ms)
    await record("2026-08-15")
    await record("2026-09-15")
    go_to(clock, "2026-11-01")
    october = await close(store, "2026-10")
    assert counts(october) == [("2026-08", "valley", 1), ("2026-09", "valley", 1)]
    assert await statement(store, "2026-08") == august
    listed = (await store.statements.list(await store.statements.account("acme"))).items
    assert [each.month for each in listed] == ["2026-10", "2026-09", "2026-08"]
    rows = (await store.usage_rows.page("acme")).items
    assert sum(each.exact_nanos for each in listed) == sum(row["cost_nanos"] for row in rows)
    closings = (await store.audit.list(action="statements.close")).items
    assert [each.resource for each in closings] == [
        f"tenants/acme/statements/{each.month}" for each in listed
    ]
    assert all(each.hash in event.details for each, event in zip(listed, closings, strict=True))


async def test_months_are_closed_in_their_order_once_they_have_ended(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-20")
    await record("2026-10-20")
    go_to(clock, "2026-10-31")
    with pytest.raises(FailedPrecondition, match="2026-08 has usage of tenant acme and is open"):
        await close(store, "2026-09")
    with pytest.raises(FailedPrecondition, match="2026-10 goes on in UTC"):
        await close(store, "2026-10")
    await close(store, "2026-08")
    go_to(clock, "2026-11-01")
    await close(store, "2026-10")
    for month in ("2026-09", "2026-12"):
        with pytest.raises(ResourceNotFound):
            await statement(store, month)


async def test_a_month_that_is_closed_early_goes_on_in_the_next_statement(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-01")
    go_to(clock, "2026-08-10")
    account = await store.statements.account("acme")
    with pytest.raises(FailedPrecondition, match="goes on in UTC"):
        await close(store, "2026-08")
    first = await store.statements.close(account, "2026-08", early=True, by=ROOT)
    assert counts(first) == [("", "valley", 1)]
    await record("2026-08-20")
    await record("2026-09-02")
    go_to(clock, "2026-10-01")
    assert await statement(store, "2026-08") == first
    assert counts(await close(store, "2026-09")) == [("", "valley", 1), ("2026-08", "valley", 1)]


async def test_months_are_closed_some_days_after_their_end(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await store.tenants.create(Tenant("idle"), by=ROOT)
    await record("2026-08-20")
    await record("2026-10-20")
    three_days = timedelta(days=3)
    go_to(clock, "2026-09-03T23:59")
    assert await store.statements.close_due(three_days) == []
    go_to(clock, "2026-11-04")
    done = await store.statements.close_due(three_days)
    assert [(each.account.tenant, each.month) for each in done] == [
        ("acme", "2026-08"),
        ("acme", "2026-10"),
    ]
    assert await store.statements.close_due(three_days) == []
    # Without usage of its own, a month is closed for what came late.
    await record("2026-08-21")
    assert await store.statements.close_due(three_days) == []
    go_to(clock, "2026-12-04")
    (late,) = await store.statements.close_due(three_days)
    assert (late.month, counts(late)) == ("2026-11", [("2026-08", "valley", 1)])


async def test_a_fault_with_one_account_keeps_no_other_one_open(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await store.tenants.create(Tenant("aaa"), by=ROOT)
    await record("2026-08-20", tenant="aaa")
    await record("2026-08-20")
    # One that was known when it was chosen.
    await store.tenants.update("aaa", lambda t: replace(t, time_zone="Atlantis/Old"), by=ROOT)
    go_to(clock, "2026-09-10")
    (closed,) = await store.statements.close_due(timedelta(days=3))
    assert (closed.account.tenant, closed.month) == ("acme", "2026-08")


async def test_lines_of_models_without_a_price_are_marked(
    store: Store, clock: TestClock, record: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for model in ("gift", "new", "none", "valley"):
        await record("2026-08-03", model=model)
        await record("2026-08-03", model=model)
    go_to(clock, "2026-08-04")
    await store.prices.create(Price("gift", "USD", None, 0, 0, 0), by=ROOT)
    await store.prices.create(Price("new", "USD", None, 5, 5, 5), by=ROOT)
    await record("2026-08-05", model="new")
    found = [(line.model, line.unpriced) for line in (await statement(store, "2026-08")).lines]
    unpriced = [("gift", True), ("new", True), ("new", False), ("none", True)]
    assert found == [*unpriced, ("valley", False)]
    assert await store.usage_sums.unpriced(UsageFilter()) == ["none"]
    go_to(clock, "2026-09-01")
    assert await close(store, "2026-08") == await statement(store, "2026-08")
    warned = [r for r in caplog.records if r.message == "usage.unpriced"]
    assert [r.__dict__["model"] for r in warned] == ["gift", "new", "none"]
    await record("2026-09-03", model="gift")
    assert [line.unpriced for line in (await statement(store, "2026-09")).lines] == [False]


async def test_a_correction_is_a_line_of_the_next_statement(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-20")
    go_to(clock, "2026-09-02")
    august = await close(store, "2026-08")
    account = august.account
    for amount in (0, CENT // 2):
        with pytest.raises(InvalidRequest, match="at most 2 digits"):
            await store.statements.correct(account, "2026-08", amount, "an outage", by=ROOT)
    with pytest.raises(InvalidRequest, match="has not begun"):
        await store.statements.correct(account, "2026-10", CENT, "too early", by=ROOT)
    await store.statements.correct(account, "2026-08", -250 * CENT, "an outage", by=ROOT)
    assert await statement(store, "2026-08") == august
    go_to(clock, "2026-10-01")
    september = await close(store, "2026-09")
    assert september.lines == (
        Line(
            "",
            corrects="2026-08",
            reason="an outage",
            exact_nanos=-250 * CENT,
            amount_nanos=-250 * CENT,
        ),
    )
    await record("2026-10-05")
    go_to(clock, "2026-11-01")
    assert counts(await close(store, "2026-10")) == [("", "valley", 1)]
    (event,) = (await store.audit.list(action="statements.correct")).items
    assert event.actor == ROOT.name


async def test_statements_outlive_their_tenant_and_are_not_those_of_its_name(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-20")
    go_to(clock, "2026-09-02")
    august = await close(store, "2026-08")
    await record("2026-09-03", output_tokens=7)
    go_to(clock, "2026-09-05")
    await store.tenants.delete("acme", by=ROOT)
    old = await store.statements.account("acme")
    assert (old.account_id, old.delete_time) == (august.account.account_id, clock.now)
    go_to(clock, "2026-09-10")
    await store.tenants.create(Tenant("acme", currency="EUR", time_zone="Asia/Tokyo"), by=ROOT)
    await store.prices.create(Price("valley", "EUR", None, 1, 1, 1), by=ROOT)
    await record("2026-09-20", output_tokens=9)
    # Late, of the deleted tenant.
    await record("2026-09-04", output_tokens=8)
    new = await store.statements.account("acme")
    assert new.account_id != old.account_id
    assert await store.statements.account("acme", old.account_id) == old
    go_to(clock, "2026-10-05")

    async def tokens(account: Account) -> list[int]:
        found = await store.statements.get(account, "2026-09")
        return [line.output_tokens for line in found.lines]

    assert await tokens(new) == [9]
    assert await tokens(old) == [15]
    done = await store.statements.close_due(timedelta(days=3))
    assert [(each.account.account_id, each.account.currency) for each in done] == [
        (old.account_id, "USD"),
        (new.account_id, "EUR"),
    ]
    assert await store.statements.get(old, "2026-08") == august
    with pytest.raises(ResourceNotFound):
        await store.statements.account("other", old.account_id)


async def test_a_tenants_currency_stays_once_it_has_usage(store: Store, record: Recorder) -> None:
    await store.tenants.update("acme", lambda t: replace(t, currency="EUR"), by=ROOT)
    await store.tenants.update("acme", lambda t: replace(t, currency="USD"), by=ROOT)
    await record("2026-08-20")
    with pytest.raises(FailedPrecondition, match="its currency cannot change any more"):
        await store.tenants.update("acme", lambda t: replace(t, currency="EUR"), by=ROOT)


async def test_what_is_kept_of_a_statement_is_its_content_and_hash(
    store: Store, clock: TestClock, record: Recorder
) -> None:
    await record("2026-08-20")
    go_to(clock, "2026-09-02")
    await close(store, "2026-08")
    kept = await statement(store, "2026-08")
    assert content(kept) == content(await close(store, "2026-08"))
    assert len(kept.hash) == 64
