"""Whatever breaks, and wherever control dies: each row runs once, and is in one file, once."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import FailedPrecondition
from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace_control.base.batches import Batch, BatchLimits, NewBatch, Owner
from headrace_control.base.records import Tenant
from headrace_control.batches.input_rows import InputRow
from headrace_control.batches.work import BatchWork
from headrace_control.store import Store
from helpers.batch_world import (
    GO,
    KILL,
    LOST,
    MemoryFiles,
    ScriptedRunner,
    Steps,
    refused,
    rows,
    succeeds,
)
from helpers.control_store import ROOT, TestClock

LIMITS = BatchLimits(
    rows_per_batch=3, rows_in_all=3, batches=2, retry_s=0.001, poll_s=0.001, group_s=0.001
)
NEW = NewBatch(Owner("acme"), "/v1/completions", "file-in", "1h")
ROWS = 12

FAULTS = st.lists(
    st.sampled_from([GO] * 12 + [LOST, KILL]),
    max_size=120,
)
ENDS = st.sampled_from(["runs", "runs", "is cancelled", "expires"])


def answer(row: InputRow, run: int) -> RowAnswer:
    if row.line % 5 == 0:
        return refused(400)
    return (
        refused(503, retry_after_s=0.001) if row.line % 4 == 0 and not run else succeeds(row, run)
    )


class History:
    """One batch, and one control process after the other."""

    def __init__(self, store: Store, clock: TestClock, faults: list[str], end: str) -> None:
        self.store, self.clock, self.end = store, clock, end
        self.steps = Steps(iter(faults))
        self.files = MemoryFiles(self.steps, {"file-in": rows(ROWS)})
        self.runner = ScriptedRunner(self.steps, answer)
        self.deaths = 0

    async def run(self) -> Batch:
        await self.store.tenants.create(Tenant("acme"), by=ROOT)
        batch_id = (await self.store.batches.create(NEW, by=ROOT)).batch_id
        async with asyncio.timeout(30):
            while not await self._live(batch_id):
                self.deaths += 1
        return await self.store.batches.get("acme", batch_id)

    async def _live(self, batch_id: str) -> bool:
        """Work until the batch has ended, or the process dies: False."""
        died = asyncio.Event()
        self.steps.kill = died.set
        work = BatchWork(
            self.store.batches,
            self.files,
            self.runner,
            self.clock,
            LIMITS,
            why_not=lambda owner: "",
        )
        task = asyncio.create_task(work.run())
        try:
            while not died.is_set():
                batch = await self.store.batches.get("acme", batch_id)
                if batch.is_final:
                    return True
                await self._intervene(batch)
                await asyncio.sleep(0)
            return False
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _intervene(self, batch: Batch) -> None:
        if batch.status != "in_progress" or batch.completed < 3:
            return
        if self.end == "is cancelled":
            with suppress(FailedPrecondition):  # its last row may have ended since
                await self.store.batches.cancel("acme", batch.batch_id, by=ROOT)
        elif self.end == "expires":
            self.clock.time_s = batch.expire_time.timestamp()

    def judge(self, batch: Batch) -> None:
        output = [line["custom_id"] for line in self.files.lines(batch.output_file_id)]
        errors = [line["custom_id"] for line in self.files.lines(batch.error_file_id)]
        assert Counter([*output, *errors]) == Counter(f"r{i}" for i in range(1, ROWS + 1))
        in_order = [f"r{i}" for i in range(1, ROWS + 1)]
        assert output == [each for each in in_order if each in output]
        assert errors == [each for each in in_order if each in errors]
        assert (batch.completed, batch.failed) == (len(output), len(errors))
        assert batch.usage.output_tokens == len(output)
        files = {"file-in", batch.output_file_id, batch.error_file_id}
        assert set(self.files.contents) <= files
        assert not self.runner.not_fresh
        for (_, line), runs in self.runner.runs.items():
            assert runs <= (2 if line % 4 == 0 else 1), line
        if self.end == "runs":
            assert batch.status == "completed"
            assert errors == ["r5", "r10"]


@settings(max_examples=25, deadline=None)
@given(FAULTS, ENDS)
def test_each_row_runs_once_and_is_in_one_file_once(faults: list[str], end: str) -> None:
    async def history() -> None:
        clock = TestClock()
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder)}/headrace.db"
            store = await Store.open(url, upgrade=True, clock=clock)
            try:
                history = History(store, clock, faults, end)
                history.judge(await history.run())
            finally:
                await store.close()

    asyncio.run(history())
