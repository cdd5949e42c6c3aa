"""Batches from their creation to their files, over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from headrace.errors import GatewayUnreachable
from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace_control.base.batches import Batch, BatchLimits, NewBatch, Owner
from headrace_control.base.files import FileLimits
from headrace_control.base.records import Tenant
from headrace_control.batches.input_rows import InputRow
from headrace_control.batches.work import BatchWork
from headrace_control.store import Store
from helpers.batch_world import MemoryFiles, ScriptedRunner, Steps, refused, rows, succeeds
from helpers.control_store import ROOT, TestClock
from helpers.eventually import eventually

LIMITS = BatchLimits(
    rows_per_batch=4, rows_in_all=6, batches=8, retry_s=0.01, poll_s=0.01, group_s=0.01
)
NEW = NewBatch(Owner("acme", "k1"), "/v1/completions", "file-in", "1h")


@dataclass
class World:
    store: Store
    clock: TestClock
    steps: Steps = field(default_factory=lambda: Steps(iter(())))
    why_not: str = ""
    limits: BatchLimits = LIMITS

    def __post_init__(self) -> None:
        self.files, self.runner = MemoryFiles(self.steps), ScriptedRunner(self.steps)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        work = BatchWork(
            self.store.batches,
            self.files,
            self.runner,
            self.clock,
            self.limits,
            why_not=lambda owner: self.why_not,
        )
        task = asyncio.create_task(work.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    async def create(self, content: bytes, new: NewBatch = NEW) -> str:
        self.files.contents[new.input_file_id] = content
        return (await self.store.batches.create(new, by=ROOT)).batch_id

    async def batch(self, batch_id: str) -> Batch:
        return await self.store.batches.get("acme", batch_id)

    async def ended(self, batch_id: str) -> Batch:
        async with asyncio.timeout(20):
            while not (batch := await self.batch(batch_id)).is_final:
                await asyncio.sleep(0.01)
        return batch

    def outcomes(self, batch: Batch) -> tuple[list[object], dict[object, object]]:
        """Return the custom_ids of the output file, and the error of each of the error file."""
        output = [line["custom_id"] for line in self.files.lines(batch.output_file_id)]
        errors = self.files.lines(batch.error_file_id)
        return output, {line["custom_id"]: line["error"] for line in errors}


@pytest.fixture
def world(store: Store, clock: TestClock) -> World:
    return World(store, clock)


async def test_a_batch_runs_and_its_output_is_in_the_order_of_its_lines(world: World) -> None:
    batch_id = await world.create(rows(30))
    async with world.working():
        batch = await world.ended(batch_id)
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 30, 30, 0)
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (30, 30)
    assert (batch.has_output, batch.has_errors) == (True, False)
    assert world.outcomes(batch) == ([f"r{i}" for i in range(1, 31)], {})


async def test_rows_of_all_batches_that_run_at_a_time_are_bounded(world: World) -> None:
    ids = [await world.create(rows(20), replace(NEW, input_file_id=f"f{i}")) for i in range(3)]
    world.runner.holds = asyncio.Event()
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_in_all)
        world.runner.holds.set()
        for batch_id in ids:
            assert (await world.ended(batch_id)).status == "completed"
    assert world.runner.most_running == LIMITS.rows_in_all


async def test_batches_of_a_tenant_that_wait_keep_no_other_tenants_from_running(
    world: World,
) -> None:
    await world.store.tenants.create(Tenant("bolt"), by=ROOT)
    world.runner.answer = lambda row, run: (
        refused(429, retry_after_s=60) if row.custom_id == "r1" else succeeds(row, run)
    )
    for number in range(2 * LIMITS.batches):
        await world.create(rows(1), replace(NEW, input_file_id=f"f{number}"))
    of_bolt = replace(NEW, owner=Owner("bolt"), input_file_id="bolts")
    batch_id = await world.create(rows(1).replace(b"r1", b"r2"), of_bolt)
    async with world.working(), asyncio.timeout(20):
        while not (await world.store.batches.get("bolt", batch_id)).is_final:
            await asyncio.sleep(0.01)


async def test_an_invalid_input_fails_the_batch_before_a_row_runs(world: World) -> None:
    bad = rows(2) + b"{\n" + rows(1)
    world.runner.refused_models["x"] = "The model `x` does not exist"
    async with world.working():
        batch = await world.ended(await world.create(bad))
        other = await world.ended(await world.create(rows(1, model="x")))
        gone = await world.create(rows(1), replace(NEW, input_file_id="gone"))
        del world.files.contents["gone"]
        lost = await world.ended(gone)
    found = [(error.code, error.line) for error in batch.errors]
    assert (batch.status, found) == (
        "failed",
        [("invalid_json_line", 3), ("duplicate_custom_id", 4)],
    )
    assert [(e.code, e.message, e.param, e.line) for e in other.errors] == [
        ("model_not_found", "The model `x` does not exist", "body.model", 1)
    ]
    assert (lost.status, lost.errors[0].code) == ("failed", "input_file_not_found")
    assert not world.runner.called


async def test_rows_that_fail_are_in_the_error_file_and_those_without_room_run_again(
    world: World,
) -> None:
    def answer(row: InputRow, run: int) -> RowAnswer:
        if row.line == 3:
            return refused(400)
        return refused(429, retry_after_s=0.01) if row.line == 5 and run < 3 else succeeds(row, run)

    world.runner.answer = answer
    batch_id = await world.create(rows(6))
    async with world.working():
        batch = await world.ended(batch_id)
    assert (batch.status, batch.completed, batch.failed) == ("completed", 5, 1)
    output, errors = world.outcomes(batch)
    assert output == ["r1", "r2", "r4", "r5", "r6"]
    assert list(errors) == ["r3"]
    assert world.runner.runs[batch_id, 5] == 4


async def test_a_cancelled_batch_keeps_what_is_finished_and_names_what_is_not(
    world: World,
) -> None:
    batch_id = await world.create(rows(20))
    world.runner.holds, world.runner.held_from = asyncio.Event(), 8
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
        await world.store.batches.cancel("acme", batch_id, by=ROOT)
        batch = await world.ended(batch_id)
    assert batch.status == "cancelled"
    assert batch.completed + batch.failed == batch.total == 20
    output, errors = world.outcomes(batch)
    assert sorted([*output, *errors], key=str) == sorted((f"r{i}" for i in range(1, 21)), key=str)
    assert {str(error) for error in errors.values()} == {
        "{'code': 'batch_cancelled', 'message': 'This request was not executed before the batch was"
        " cancelled.'}"
    }
    assert output == [f"r{i}" for i in range(1, 8)]


async def test_rows_that_did_not_run_before_the_window_ended_have_expired(
    world: World, clock: TestClock
) -> None:
    def answer(row: InputRow, run: int) -> RowAnswer:
        return succeeds(row, run) if row.line < 4 else refused(429, retry_after_s=3600)

    world.runner.answer = answer
    batch_id = await world.create(rows(9))
    async with world.working():
        async with asyncio.timeout(10):
            while (await world.batch(batch_id)).completed < 3:
                await asyncio.sleep(0.01)
    clock.advance(3600)
    async with world.working():
        batch = await world.ended(batch_id)
    assert (batch.status, batch.completed, batch.failed) == ("expired", 3, 6)
    output, errors = world.outcomes(batch)
    assert output == ["r1", "r2", "r3"]
    assert list(errors) == [f"r{i}" for i in range(4, 10)]
    assert "batch_expired" in str(errors["r4"])


@pytest.mark.parametrize("window", ["1m", "24h", "168h"])
async def test_rows_run_until_the_last_second_of_the_window_and_are_cancelled_at_its_end(
    world: World, clock: TestClock, window: str
) -> None:
    batch_id = await world.create(rows(6), replace(NEW, window=window, output_expires_s=3600))
    world.runner.holds, world.runner.held_from = asyncio.Event(), 3
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
    clock.advance((await world.batch(batch_id)).expire_time.timestamp() - clock.unix_s() - 0.25)
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
        assert (await world.batch(batch_id)).status == "in_progress"
        clock.advance(0.25)
        batch = await world.ended(batch_id)
    assert (batch.status, batch.completed, batch.failed) == ("expired", 2, 4)
    output, errors = world.outcomes(batch)
    assert (output, list(errors)) == (["r1", "r2"], ["r3", "r4", "r5", "r6"])
    assert world.runner.running == 0


async def test_a_batch_whose_answers_have_no_room_fails_and_keeps_those_that_fit(
    world: World,
) -> None:
    room = FileLimits(tenant_bytes=1000, tenant_files=10, mesh_bytes=1 << 30)
    world.limits = replace(LIMITS, files=room)
    batch_id = await world.create(rows(100))
    world.runner.holds, world.runner.held_from = asyncio.Event(), 50
    async with world.working():
        batch = await world.ended(batch_id)
    assert (batch.status, [error.code for error in batch.errors]) == (
        "failed",
        ["insufficient_quota"],
    )
    assert "no room for the answers of further rows" in batch.errors[0].message
    output, errors = world.outcomes(batch)
    assert len(output) == batch.completed > 2
    assert errors == {}
    written = len(world.files.contents[batch.output_file_id])
    assert 1000 - 200 < written <= 1000
    assert world.runner.running == 0
    assert len(world.runner.called) < 60
    assert batch.failed == 100 - batch.completed


async def test_a_batch_whose_key_is_revoked_is_cancelled(world: World) -> None:
    batch_id = await world.create(rows(20))
    world.runner.holds = asyncio.Event()
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
        world.why_not = "The API key that created this batch is not valid any more."
        batch = await world.ended(batch_id)
    assert (batch.status, batch.completed, batch.failed) == ("cancelled", 0, 20)
    assert [(error.code, error.message) for error in batch.errors] == [
        ("invalid_api_key", world.why_not)
    ]
    assert len(world.outcomes(batch)[1]) == 20


async def test_a_batch_whose_input_is_deleted_under_way_fails_with_what_it_has(
    world: World,
) -> None:
    batch_id = await world.create(rows(20))
    world.runner.holds = asyncio.Event()
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
    world.runner.holds.set()
    world.files.contents.pop("file-in")
    async with world.working():
        batch = await world.ended(batch_id)
    assert (batch.status, batch.errors[0].code) == ("failed", "input_file_not_found")


async def test_a_deleted_tenants_batch_is_worked_on_no_more(world: World) -> None:
    await world.create(rows(20))
    world.runner.holds = asyncio.Event()
    async with world.working():
        await eventually(lambda: world.runner.running == LIMITS.rows_per_batch)
        await world.store.tenants.delete("acme", by=ROOT)
        await eventually(lambda: world.runner.running == 0)
    assert world.runner.runs.total() == 0


class _CutOff(ScriptedRunner):
    """Gateways whose connections break while their calls are cancelled."""

    async def run(self, batch: Batch, row: InputRow, *, is_fresh: bool) -> RowAnswer:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise GatewayUnreachable("the connection broke")


async def test_work_ends_although_calls_fail_as_they_are_cancelled(world: World) -> None:
    world.runner = _CutOff(world.steps)
    await world.create(rows(3))
    async with asyncio.timeout(10), world.working():
        await eventually(lambda: world.runner.running == 3)
