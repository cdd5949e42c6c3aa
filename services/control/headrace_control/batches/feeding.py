"""Feeds the rows of one batch to gateways, a few at a time, in the order of their lines.

    readers     `rows_per_batch` of them: each takes the next row of the input file that is not
                finished, calls for it until it is answered, and takes the next
    writer      stores what is answered, all that waits in one transaction
    stop        no further row is taken; rows that run are cancelled, and what is answered by then
                is stored

A row that failed for want of capacity or of quota waits as long as the answer says, but not longer
than `MAX_WAIT_S`: quotas may be raised meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from headrace.cancellation import recheck_cancelled
from headrace.errors import CapacityError, ControlUnavailable, HeadraceError
from headrace_control.base import metrics
from headrace_control.base.batches import Batch, BatchLimits, FinishedRow
from headrace_control.batches.input_rows import InputRow, InvalidRow, parse_row
from headrace_control.batches.lines import lines_of
from headrace_control.batches.output_rows import finished_row
from headrace_control.batches.ports import BatchRows, Files, RowRunner
from headrace_control.batches.progress import Progress

log = logging.getLogger(__name__)

MAX_WAIT_S = 300.0
_PART_OF_ROOM = 16
STOP_S = 20.0
"""How long rows that were cancelled may take to be answered."""
_STORED_AT_ONCE = 512


class Feeding:
    """One batch from its first row to its last, or to `stop`."""

    def __init__(
        self,
        batch: Batch,
        store: BatchRows,
        files: Files,
        runner: RowRunner,
        *,
        permits: asyncio.Semaphore,
        limits: BatchLimits,
    ) -> None:
        """`permits`: of rows of all batches that run at a time."""
        self._batch, self._store, self._files, self._runner = batch, store, files, runner
        self._permits, self._limits = permits, limits
        self._progress = Progress((), 0)
        self._stopped = asyncio.Event()
        self._running: set[int] = set()
        self._taking = asyncio.Lock()
        self._all_read = asyncio.Event()
        self._checked_bytes = 0
        """Of output: so many are written without a look at the room that there is."""
        self.is_full = False
        """There was no room for an answer; no further one is stored."""
        self._answered: asyncio.Queue[FinishedRow] = asyncio.Queue(_STORED_AT_ONCE)

    def stop(self) -> None:
        """Take no further row, and cancel those that run."""
        self._stopped.set()

    async def run(self) -> None:
        """Return once every row is finished and stored, or those that ran are, after `stop`.

        Raises:
            HeadraceError, BusError: the input file cannot be read, or the database cannot.
        """
        batch = self._batch
        finished = await self._store.finished_lines(batch.batch_id)
        self._progress = Progress(finished, batch.fed_line)
        rows = self._rows()
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write())
                readers = [
                    tasks.create_task(self._read(rows)) for _ in range(self._limits.rows_per_batch)
                ]
                stopping = tasks.create_task(self._cancel_when_stopped(readers))
                await asyncio.wait(readers)
                stopping.cancel()
                self._all_read.set()
                await self._answered.join()
                writer.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await rows.aclose()

    async def _rows(self) -> AsyncGenerator[InputRow]:
        """Yield the rows that are not finished; the mark is ahead of each."""
        new, progress = self._batch.new, self._progress
        file = await self._files.get(new.owner.tenant, new.input_file_id)
        async for line, content in lines_of(self._files.read(file)):
            if progress.is_finished(line):
                continue
            try:
                row = parse_row(line, content, new.endpoint)
            except InvalidRow as invalid:  # it was valid before: files do not change
                raise AssertionError(f"line {line}: {invalid.message}") from invalid
            if (mark := progress.mark_before(line)) is not None:
                await self._store.move_mark(self._batch.batch_id, mark)
                progress.move_mark(mark)
            yield row

    async def _read(self, rows: AsyncIterator[InputRow]) -> None:
        while not self._stopped.is_set():
            async with self._taking:
                row = await anext(rows, None)
            if row is None:
                return
            if (finished := await self._answer(row)) is not None:
                await self._answered.put(finished)

    async def _answer(self, row: InputRow) -> FinishedRow | None:
        """Return the row with its answer; None if the batch stops before it has one."""
        is_fresh = self._progress.is_fresh(row.line)
        while not self._stopped.is_set():
            wait_s = self._limits.retry_s
            async with self._permits:
                if self._stopped.is_set():
                    return None
                self._running.add(row.line)
                try:
                    response = await self._runner.run(self._batch, row, is_fresh=is_fresh)
                except CapacityError as error:
                    recheck_cancelled()
                    wait_s = error.retry_after_s or wait_s
                else:
                    if not response.HasField("retry_after"):
                        return finished_row(self._batch.batch_id, row, response)
                    wait_s = response.retry_after.ToNanoseconds() / 1e9
                finally:
                    self._running.discard(row.line)
            is_fresh = False
            metrics.batch_rows_retried.inc()
            await self._wait(min(wait_s, MAX_WAIT_S))
        return None

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _cancel_when_stopped(self, readers: list[asyncio.Task[None]]) -> None:
        await self._stopped.wait()
        await asyncio.gather(*map(self._cancel, sorted(self._running)))
        await asyncio.wait(readers, timeout=STOP_S)
        for reader in readers:
            reader.cancel()

    async def _cancel(self, line: int) -> None:
        try:
            await self._runner.cancel(self._batch, line)
        except HeadraceError as error:
            recheck_cancelled()
            facts = {"batch_id": self._batch.batch_id, "line": line, "why": str(error)}
            log.warning("batch.row_not_cancelled", extra=facts)

    async def _write(self) -> None:
        while True:
            rows = [await self._answered.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.group_s):
                    await self._all_read.wait()
            while len(rows) < _STORED_AT_ONCE and not self._answered.empty():
                rows.append(self._answered.get_nowait())
            await self._store_patiently(rows)
            for row in rows:
                metrics.batch_rows.labels("completed" if row.succeeded else "failed").inc()
                self._answered.task_done()

    async def _store_patiently(self, rows: list[FinishedRow]) -> None:
        size = sum(row.stored_bytes for row in rows)
        limits = self._limits.files if size > self._checked_bytes else None
        while not self.is_full:
            try:
                left = await self._store.add_rows(self._batch.batch_id, rows, limits)
                if left is not None and left < 0:
                    self.is_full = True
                    self.stop()
                elif left is not None:
                    # Why a part: other batches of the tenant write as well.
                    self._checked_bytes = left // _PART_OF_ROOM
                else:
                    self._checked_bytes -= size
                return
            except ControlUnavailable as error:
                recheck_cancelled()
                await asyncio.sleep(error.retry_after_s or self._limits.retry_s)
