"""Works on the batches that have not ended, in the active control process.

    validating    the input is read whole: failed, or in progress
    in progress   its rows are fed until all are finished, its window ends, or its owner may not use
                  the mesh any more; then its outcome and the ids of its files are decided
    cancelling    rows that run are cancelled; then the same
    finalizing    its files are written, and it ends

Each step is begun again from the database after any failure, and after the death of the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from headrace.bus import BusError
from headrace.cancellation import recheck_cancelled, run_isolated
from headrace.clock import Clock
from headrace.errors import HeadraceError
from headrace_control.base import metrics
from headrace_control.base.batches import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXPIRED,
    FAILED,
    IN_PROGRESS,
    VALIDATING,
    Batch,
    BatchError,
    BatchLimits,
    Closing,
    Owner,
)
from headrace_control.batches.feeding import Feeding
from headrace_control.batches.finalizing import finalize
from headrace_control.batches.ports import BatchRows, Files, RowRunner
from headrace_control.batches.validation import INPUT_LOST, LOST, validate
from headrace_control.files.file_store import new_file_id

log = logging.getLogger(__name__)

_FULL = (
    "The files that may be stored have no room for the answers of further rows; those that are"
    " there are in the files of this batch. Delete files, and create a batch of the other rows."
)


@dataclass(frozen=True, slots=True)
class _Worked:
    task: asyncio.Task[None]
    stopped: asyncio.Event
    """Set to stop its feeding."""
    tenant: str


class BatchWork:
    def __init__(
        self,
        store: BatchRows,
        files: Files,
        runner: RowRunner,
        clock: Clock,
        limits: BatchLimits,
        *,
        why_not: Callable[[Owner], str],
    ) -> None:
        """`why_not`: why an owner may not use the mesh now; empty: the owner may."""
        self._store, self._files, self._runner = store, files, runner
        self._clock, self._limits, self._why_not = clock, limits, why_not
        self._permits = asyncio.Semaphore(limits.rows_in_all)
        self._worked: dict[str, _Worked] = {}
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Look at once: a batch was created, or is to be cancelled."""
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                recheck_cancelled()
                self._news.clear()
                try:
                    await self._look(tasks)
                except HeadraceError as error:
                    log.warning("batches.unknown", extra={"why": str(error)})
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.poll_s):
                        await self._news.wait()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        unfinished = await self._store.unfinished()
        metrics.batches_open.set(len(unfinished))
        known = {batch.batch_id for batch in unfinished}
        for batch_id, worked in self._worked.items():
            if batch_id not in known:
                worked.stopped.set()  # its tenant was deleted, with it
        for batch in unfinished:
            worked_on = self._worked.get(batch.batch_id)
            if worked_on is None and self._has_room(batch.new.owner.tenant):
                self._begin(tasks, batch)
            elif worked_on is not None and (
                batch.status == CANCELLING or self._why_not(batch.new.owner)
            ):
                worked_on.stopped.set()

    def _has_room(self, tenant: str) -> bool:
        """Return whether one more batch of a tenant may be worked on: one tenant has up to a
        quarter of the places, so that its batches, which may wait for days, keep no other's."""
        of_tenant = sum(worked.tenant == tenant for worked in self._worked.values())
        most = self._limits.batches
        return len(self._worked) < most and of_tenant < max(1, most // 4)

    def _begin(self, tasks: asyncio.TaskGroup, batch: Batch) -> None:
        batch_id, stopped = batch.batch_id, asyncio.Event()
        task = tasks.create_task(self._finish(batch_id, stopped))
        self._worked[batch_id] = _Worked(task, stopped, batch.new.owner.tenant)
        task.add_done_callback(lambda _: self._worked.pop(batch_id, None))

    async def _finish(self, batch_id: str, stopped: asyncio.Event) -> None:
        """Do one step after the other until the batch has ended, or is none any more."""
        while (batch := await self._found(batch_id)) is not None and not batch.is_final:
            try:
                await self._step(batch, stopped)
            except (HeadraceError, BusError) as error:
                recheck_cancelled()
                facts = {"batch_id": batch_id, "status": batch.status, "why": str(error)}
                log.warning("batch.waits", extra=facts)
                await asyncio.sleep(self._limits.retry_s)
            except Exception:
                # Why all: one batch that cannot be worked on must not stop the others.
                recheck_cancelled()
                log.exception("batch.broken", extra={"batch_id": batch_id})
                await asyncio.sleep(30 * self._limits.retry_s)
            else:
                log.info("batch.moved", extra={"batch_id": batch_id, "from": batch.status})
        self.wake()

    async def _found(self, batch_id: str) -> Batch | None:
        while True:
            try:
                return await self._store.find(batch_id)
            except HeadraceError:
                recheck_cancelled()
                await asyncio.sleep(self._limits.retry_s)

    async def _step(self, batch: Batch, stopped: asyncio.Event) -> None:
        if batch.status == VALIDATING:
            await validate(batch, self._store, self._files, self._runner)
        elif batch.outcome:
            await finalize(batch, self._store, self._files)
        elif batch.status == CANCELLING:
            await self._close(batch, CANCELLED)
        else:
            assert batch.status == IN_PROGRESS
            await self._feed(batch, stopped)

    async def _feed(self, batch: Batch, stopped: asyncio.Event) -> None:
        feeding = Feeding(
            batch,
            self._store,
            self._files,
            self._runner,
            permits=self._permits,
            limits=self._limits,
        )
        stopping = asyncio.create_task(self._stop_in_time(batch, feeding, stopped))
        try:
            # Why isolated: a row that fails must not mark the task of its batch as cancelled.
            await run_isolated(feeding.run())
        except LOST as error:
            await self._close(batch, FAILED, (BatchError(INPUT_LOST, error.message),))
        else:
            if feeding.is_full:
                await self._close(batch, FAILED, (BatchError("insufficient_quota", _FULL),))
            else:
                await self._close_fed(batch, stopped)
        finally:
            stopping.cancel()

    async def _stop_in_time(self, batch: Batch, feeding: Feeding, stopped: asyncio.Event) -> None:
        """Stop feeding once the batch is to be cancelled, or its window is over."""
        left_s = batch.expire_time.timestamp() - self._clock.unix_s()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left_s)):
                await stopped.wait()
        feeding.stop()

    async def _close_fed(self, batch: Batch, stopped: asyncio.Event) -> None:
        now = await self._store.find(batch.batch_id)
        if now is None:
            return
        if now.completed + now.failed >= now.total:
            await self._close(now, COMPLETED)
        elif now.status == CANCELLING:
            await self._close(now, CANCELLED)
        elif why := self._why_not(now.new.owner):
            await self._close(now, CANCELLED, (BatchError("invalid_api_key", why),))
        elif now.expire_time.timestamp() <= self._clock.unix_s():
            await self._close(now, EXPIRED)
        else:
            stopped.clear()  # what stopped it is over: it goes on

    async def _close(self, batch: Batch, outcome: str, errors: tuple[BatchError, ...] = ()) -> None:
        closing = Closing(outcome, new_file_id(), new_file_id(), errors)
        await self._store.close(batch.batch_id, closing)
