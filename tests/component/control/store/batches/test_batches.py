"""Batches in the database: what they become, and that each row counts once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.bus.objects import StoredObject
from headrace.errors import (
    FailedPrecondition,
    InsufficientQuota,
    InvalidRequest,
    ResourceExists,
    ResourceNotFound,
)
from headrace_control.base.batches import (
    Batch,
    BatchError,
    Closing,
    FinishedRow,
    NewBatch,
    Owner,
    RowUsage,
)
from headrace_control.base.files import FileLimits, NewFile
from headrace_control.base.records import Tenant
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock

OWNER = Owner("acme", "k1", "", ("batches", "generate"), ("*",))
NEW = NewBatch(OWNER, "/v1/completions", "file-1", "24h", {"a": "b"}, 3600)
CLOSING = Closing("completed", "file-out", "file-err")


def row(line: int, *, succeeded: bool = True) -> FinishedRow:
    return FinishedRow(line, succeeded, f'{{"line": {line}}}', RowUsage(5, 1, 2, 0))


@pytest.fixture
async def batch(store: Store) -> Batch:
    for name in ("acme", "other"):
        await store.tenants.create(Tenant(name), by=ROOT)
    return await store.batches.create(NEW, by=ROOT)


async def test_a_batch_is_its_tenants(store: Store, batch: Batch) -> None:
    assert batch.new == NEW
    assert (batch.status, batch.total, batch.errors) == ("validating", 0, ())
    assert (batch.expire_time - batch.times["validating"]).total_seconds() == 86400
    assert await store.batches.get("acme", batch.batch_id) == batch
    for tenant, batch_id in (("other", batch.batch_id), ("acme", "batch_none")):
        with pytest.raises(ResourceNotFound):
            await store.batches.get(tenant, batch_id)
    with pytest.raises(ResourceNotFound):
        await store.batches.create(NewBatch(Owner("none"), "/v1/x", "f", "1h"), by=ROOT)


async def test_batches_are_listed_in_pages_the_newest_first(
    store: Store, batch: Batch, clock: TestClock
) -> None:
    made = [batch]
    for _ in range(3):
        clock.advance(1)
        made.append(await store.batches.create(NEW, by=ROOT))
    newest_first = [each.batch_id for each in reversed(made)]
    page, more = await store.batches.list("acme", after="", limit=3)
    assert ([each.batch_id for each in page], more) == (newest_first[:3], True)
    page, more = await store.batches.list("acme", after=newest_first[2], limit=3)
    assert ([each.batch_id for each in page], more) == (newest_first[3:], False)
    assert await store.batches.list("other", after="", limit=3) == ((), False)
    with pytest.raises(InvalidRequest, match="no batch of this id"):
        await store.batches.list("other", after=batch.batch_id, limit=3)


async def test_an_idempotency_key_makes_one_batch(store: Store, batch: Batch) -> None:
    keyed = NewBatch(OWNER, "/v1/completions", "file-1", "24h", idempotency_key="k")
    first = await store.batches.create(keyed, by=ROOT)
    assert await store.batches.create(keyed, by=ROOT) == first
    other = NewBatch(OWNER, "/v1/completions", "file-2", "24h", idempotency_key="k")
    with pytest.raises(ResourceExists, match="had other parameters"):
        await store.batches.create(other, by=ROOT)


async def test_a_row_counts_once_however_often_it_is_added(store: Store, batch: Batch) -> None:
    batches, batch_id = store.batches, batch.batch_id
    await batches.start(batch_id, 3)
    await batches.add_rows(batch_id, [row(1), row(2, succeeded=False)])
    await batches.add_rows(batch_id, [row(2), row(1), row(3)])
    now = await batches.get("acme", batch_id)
    assert (now.status, now.total, now.completed, now.failed) == ("in_progress", 3, 2, 1)
    assert now.usage == RowUsage(15, 3, 6, 0)
    assert await batches.finished_lines(batch_id) == {1, 2, 3}
    assert [each.line for each in await batches.rows(batch_id, after=0)] == [1, 2, 3]
    assert [each.line for each in await batches.rows(batch_id, after=1, succeeded=True)] == [3]


async def test_a_closed_batch_takes_no_row_and_its_outcome_stays(
    store: Store, batch: Batch
) -> None:
    batches, batch_id = store.batches, batch.batch_id
    await batches.start(batch_id, 2)
    await batches.add_rows(batch_id, [row(1)])
    await batches.close(batch_id, CLOSING)
    await batches.close(batch_id, Closing("expired", "file-x", "file-y"))
    await batches.add_rows(batch_id, [row(2)])
    now = await batches.get("acme", batch_id)
    assert (now.status, now.outcome, now.completed) == ("finalizing", "completed", 1)
    assert (now.output_file_id, now.error_file_id) == ("file-out", "file-err")
    with pytest.raises(FailedPrecondition, match="is finalizing"):
        await batches.cancel("acme", batch_id, by=ROOT)
    for _ in range(2):
        await batches.finish(batch_id, has_output=True, has_errors=False)
    now = await batches.get("acme", batch_id)
    assert (now.status, now.failed, now.has_output, now.has_errors) == (
        *("completed", 1, True),
        False,
    )
    assert list(now.times) == ["validating", "in_progress", "finalizing", "completed"]
    assert await batches.finished_lines(batch_id) == frozenset()
    assert await batches.unfinished() == ()


async def test_a_batch_that_is_being_cancelled_ends_cancelled(store: Store, batch: Batch) -> None:
    batches, batch_id = store.batches, batch.batch_id
    await batches.start(batch_id, 2)
    cancelling = await batches.cancel("acme", batch_id, by=ROOT)
    assert cancelling.status == "cancelling"
    assert await batches.cancel("acme", batch_id, by=ROOT) == cancelling
    await batches.add_rows(batch_id, [row(1)])
    await batches.close(batch_id, CLOSING)
    await batches.add_rows(batch_id, [row(2)])
    await batches.finish(batch_id, has_output=True, has_errors=True)
    now = await batches.get("acme", batch_id)
    assert (now.status, now.completed, now.failed) == ("cancelled", 1, 1)


async def test_a_refused_batch_has_failed_with_its_errors(store: Store, batch: Batch) -> None:
    errors = (BatchError("invalid_json_line", "no", line=3), BatchError("empty_file", "none"))
    await store.batches.refuse(batch.batch_id, errors)
    await store.batches.start(batch.batch_id, 7)
    now = await store.batches.get("acme", batch.batch_id)
    assert (now.status, now.errors, now.total) == ("failed", errors, 0)


async def test_a_deleted_tenant_takes_its_batches_with_it(store: Store, batch: Batch) -> None:
    await store.batches.start(batch.batch_id, 1)
    await store.batches.add_rows(batch.batch_id, [row(1)])
    await store.tenants.delete("acme", by=ROOT)
    assert await store.batches.find(batch.batch_id) is None
    await store.batches.add_rows(batch.batch_id, [row(1)])


async def test_output_counts_against_the_room_for_files_until_its_file_is_there(
    store: Store, batch: Batch
) -> None:
    limits = FileLimits(tenant_bytes=200, tenant_files=10, mesh_bytes=1000)
    size = row(1).stored_bytes
    await store.batches.start(batch.batch_id, 3)
    left = await store.batches.add_rows(batch.batch_id, [row(1), row(2)], limits)
    assert left == 200 - 2 * size
    assert await store.files.reserve("file-new", "acme", 0, limits) == left
    assert await store.files.reserve("file-other", "other", 0, limits) == 200
    with pytest.raises(InsufficientQuota):
        await store.files.reserve("file-large", "acme", left + 1, limits)

    large = FinishedRow(3, True, "x" * 300)
    beyond = await store.batches.add_rows(batch.batch_id, [row(4), large, row(5)], limits)
    assert beyond == left - size - 301
    assert [each.line for each in await store.batches.rows(batch.batch_id, after=0)] == [1, 2, 4]

    await store.batches.close(batch.batch_id, CLOSING)
    await store.files.reserve("file-out", "acme", 0)
    assert await store.files.reserve("file-next", "acme", 0, limits) == left - size
    new = NewFile("acme", "batch_output", "out.jsonl")
    await store.files.finish("file-out", new, StoredObject(3 * size, ""), by=ROOT)
    assert await store.files.reserve("file-last", "acme", 0, limits) == left - size
    await store.batches.finish(batch.batch_id, has_output=True, has_errors=False)
    await store.files.delete("acme", "file-out", by=ROOT)
    assert await store.files.reserve("file-after", "acme", 0, limits) == 200


@pytest.mark.parametrize(
    ("window", "seconds"), [("1m", 60), ("90m", 5400), ("24h", 86400), ("168h", 604800)]
)
async def test_a_window_begins_with_the_creation(
    store: Store, batch: Batch, window: str, seconds: int
) -> None:
    made = await store.batches.create(replace(NEW, window=window), by=ROOT)
    assert (made.expire_time - made.times["validating"]).total_seconds() == seconds
