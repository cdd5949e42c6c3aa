"""Batches in the database: each move of one is one transaction, which keeps it or refuses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import (
    FailedPrecondition,
    InvalidRequest,
    ResourceNotFound,
)
from headrace_control.base.batches import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXPIRED,
    FAILED,
    FINAL,
    FINALIZING,
    IN_PROGRESS,
    MOVES,
    VALIDATING,
    Batch,
    BatchError,
    Closing,
    FinishedRow,
    NewBatch,
    RowUsage,
    window_s,
)
from headrace_control.base.files import FileLimits
from headrace_control.base.names import new_id
from headrace_control.base.published_rows import milliseconds
from headrace_control.base.records import Actor
from headrace_control.store.batches.creation import check_room, same_batch
from headrace_control.store.batches.output import fitting, insert_rows
from headrace_control.store.batches.records import (
    batch_of,
    errors_text,
    new_batch_values,
    usage_text,
)
from headrace_control.store.database.file_tables import batch_rows, batches
from headrace_control.store.database.transactions import Database
from headrace_control.store.webhooks.events import add_event

MAX_OPEN = 200
_AT_ONCE = 500


class Batches:
    def __init__(self, database: Database) -> None:
        self._database = database

    # For clients

    async def create(self, new: NewBatch, *, by: Actor, limit: int = MAX_OPEN) -> Batch:
        """Create a batch, which is to be validated; or return the one of the same idempotency key.

        Args:
            limit: of the tenant's batches that have not ended.

        Raises:
            InsufficientQuota: the tenant has so many.
            ResourceExists: that key is another batch's.
            ResourceNotFound: there is no such tenant.
        """
        tenant, key = new.owner.tenant, new.idempotency_key
        async with self._database.changing(by) as change:
            if key:
                same = sa.and_(batches.c.tenant == tenant, batches.c.idempotency_key == key)
                query = sa.select(batches).where(same)
                if (row := (await change.execute(query)).one_or_none()) is not None:
                    return same_batch(batch_of(row), new)
            await check_room(change.connection, tenant, limit)
            batch_id = f"batch_{new_id()}"
            values = {
                **new_batch_values(new),
                "batch_id": batch_id,
                "status": VALIDATING,
                "create_ms": change.now_ms,
                "expire_ms": change.now_ms + window_s(new.window) * 1000,
                "times": json.dumps({VALIDATING: change.now_ms}),
                **dict.fromkeys(("total", "completed", "failed", "fed_line"), 0),
                **dict.fromkeys(("outcome", "output_file_id", "error_file_id"), ""),
                **dict.fromkeys(("has_output", "has_errors"), False),
                "errors": "[]",
                "usage": usage_text(RowUsage()),
            }
            try:
                await change.execute(sa.insert(batches).values(values))
            except sa.exc.IntegrityError:
                raise ResourceNotFound(f"tenant {tenant} not found") from None
            details = {"endpoint": new.endpoint, "input_file": new.input_file_id}
            await change.record(
                "batches.create", _name(tenant, batch_id), tenant=tenant, details=details
            )
            return await _batch(change.connection, batch_id)

    async def get(self, tenant: str, batch_id: str) -> Batch:
        """Return a tenant's batch.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        async with self._database.reading() as connection:
            return await _batch(connection, batch_id, tenant)

    async def list(self, tenant: str, *, after: str, limit: int) -> tuple[tuple[Batch, ...], bool]:
        """Return a page of a tenant's batches, the newest first, and whether there are more.

        Args:
            after: id of the batch before the first one that is returned; empty: none.

        Raises:
            InvalidRequest: there is no batch `after`.
        """
        columns = (batches.c.create_ms, batches.c.batch_id)
        found = sa.select(batches).where(batches.c.tenant == tenant)
        async with self._database.reading() as connection:
            if after:
                place = sa.select(*columns).where(
                    batches.c.batch_id == after, batches.c.tenant == tenant
                )
                if (row := (await connection.execute(place)).one_or_none()) is None:
                    raise InvalidRequest(
                        f"after is {after[:80]!r}; there is no batch of this id", field="after"
                    )
                bound = sa.tuple_(*row, types=[column.type for column in columns])
                found = found.where(sa.tuple_(*columns) < bound)
            ordered = found.order_by(*(column.desc() for column in columns)).limit(limit + 1)
            rows = (await connection.execute(ordered)).all()
        return tuple(map(batch_of, rows[:limit])), len(rows) > limit

    async def cancel(self, tenant: str, batch_id: str, *, by: Actor) -> Batch:
        """Have a batch cancelled. One that is being cancelled, or has been, stays as it is.

        Raises:
            ResourceNotFound: the tenant has none of this id.
            FailedPrecondition: it has ended, or its files are being written.
        """
        async with self._database.changing(by) as change:
            batch = await _batch(change.connection, batch_id, tenant, locks=True)
            if batch.status in (CANCELLING, CANCELLED):
                return batch
            if CANCELLING not in MOVES[batch.status]:
                raise FailedPrecondition(
                    f"batch {batch_id} is {batch.status} and cannot be cancelled any more"
                )
            await _move(change.connection, batch, CANCELLING, change.now_ms)
            await change.record("batches.cancel", _name(tenant, batch_id), tenant=tenant)
            return await _batch(change.connection, batch_id)

    # For those that work on batches

    async def unfinished(self) -> tuple[Batch, ...]:
        """Return the batches that have not ended, the oldest first."""
        query = sa.select(batches).where(batches.c.status.not_in(FINAL))
        query = query.order_by(batches.c.create_ms, batches.c.batch_id)
        async with self._database.reading() as connection:
            return tuple(map(batch_of, (await connection.execute(query)).all()))

    async def find(self, batch_id: str) -> Batch | None:
        """Return a batch as it is now; None if it was deleted, with its tenant."""
        async with self._database.reading() as connection:
            return await _find(connection, batch_id)

    async def start(self, batch_id: str, total: int) -> None:
        """Note that the input is valid and has so many rows; a no-op unless it is validating."""
        async with self._database.writing() as connection:
            batch = await _find(connection, batch_id, locks=True)
            if batch is not None and batch.status == VALIDATING:
                await _move(connection, batch, IN_PROGRESS, self._now_ms(), total=total)

    async def refuse(self, batch_id: str, errors: Sequence[BatchError]) -> None:
        """Fail a batch because of its input; a no-op unless it is validating."""
        async with self._database.writing() as connection:
            batch = await _find(connection, batch_id, locks=True)
            if batch is not None and batch.status == VALIDATING:
                now_ms = self._now_ms()
                await _move(connection, batch, FAILED, now_ms, errors=errors_text(errors))
                await _add_event(connection, batch, FAILED, now_ms)

    async def move_mark(self, batch_id: str, line: int) -> None:
        """Note that rows up to this line may be called for from now on."""
        statement = sa.update(batches).where(batches.c.batch_id == batch_id)
        async with self._database.writing() as connection:
            await connection.execute(statement.values(fed_line=line))

    async def finished_lines(self, batch_id: str) -> frozenset[int]:
        query = sa.select(batch_rows.c.line).where(batch_rows.c.batch_id == batch_id)
        async with self._database.reading() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def add_rows(
        self, batch_id: str, rows: Sequence[FinishedRow], limits: FileLimits | None = None
    ) -> int | None:
        """Add rows that are finished. Those that were added before stay as they are, and a batch
        whose outcome is known takes none.

        Args:
            limits: of files; of the rows those first are added that fit. None: all are.

        Returns:
            The bytes that may be written after these, negative if some did not fit; None without
            `limits`.
        """
        async with self._database.writing() as connection:
            batch = await _find(connection, batch_id, locks=True)
            if batch is None or batch.outcome:
                return None
            left = None
            if limits is not None:
                rows, left = await fitting(connection, batch.new.owner.tenant, rows, limits)
            if not rows or not (new := await insert_rows(connection, batch_id, rows)):
                return left
            succeeded = sum(row.succeeded for row in new)
            values = {
                "completed": batch.completed + succeeded,
                "failed": batch.failed + len(new) - succeeded,
                "output_bytes": batches.c.output_bytes + sum(row.stored_bytes for row in new),
                "usage": usage_text(sum((row.usage for row in new), batch.usage)),
            }
            one = batches.c.batch_id == batch_id
            await connection.execute(sa.update(batches).where(one).values(values))
            return left

    async def close(self, batch_id: str, closing: Closing) -> None:
        """Decide how a batch ends: from now on it takes no row. A no-op if that is decided."""
        async with self._database.writing() as connection:
            batch = await _find(connection, batch_id, locks=True)
            if batch is None or batch.outcome or batch.status not in (IN_PROGRESS, CANCELLING):
                return
            values: dict[str, Any] = {
                # One that is being cancelled ends so, whatever else came between.
                "outcome": CANCELLED if batch.status == CANCELLING else closing.outcome,
                "output_file_id": closing.output_file_id,
                "error_file_id": closing.error_file_id,
                "errors": errors_text(closing.errors),
            }
            now_ms = self._now_ms()
            if values["outcome"] == CANCELLED:
                await _move(connection, batch, CANCELLING, now_ms, **values)
            else:
                await _move(connection, batch, FINALIZING, now_ms, **values)

    async def rows(
        self, batch_id: str, *, after: int, succeeded: bool | None = None
    ) -> tuple[FinishedRow, ...]:
        """Return the next rows after a line, in order, some at once; none: there are no more."""
        query = sa.select(batch_rows).where(
            batch_rows.c.batch_id == batch_id, batch_rows.c.line > after
        )
        if succeeded is not None:
            query = query.where(batch_rows.c.succeeded.is_(succeeded))
        query = query.order_by(batch_rows.c.line).limit(_AT_ONCE)
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).all()
        return tuple(FinishedRow(row.line, row.succeeded, row.text) for row in found)

    async def finish(self, batch_id: str, *, has_output: bool, has_errors: bool) -> None:
        """End a batch as was decided, its files being written; its rows are deleted."""
        async with self._database.writing() as connection:
            batch = await _find(connection, batch_id, locks=True)
            if batch is None or batch.is_final:
                return
            now_ms, files = self._now_ms(), {"has_output": has_output, "has_errors": has_errors}
            # Rows that did not run have failed.
            failed = max(batch.failed, batch.total - batch.completed)
            await _move(
                connection, batch, batch.outcome, now_ms, failed=failed, output_bytes=0, **files
            )
            await connection.execute(sa.delete(batch_rows).where(batch_rows.c.batch_id == batch_id))
            await _add_event(connection, batch, batch.outcome, now_ms)

    def _now_ms(self) -> int:
        return milliseconds(self._database.now())


async def delete_batches_of(connection: AsyncConnection, tenant: str) -> None:
    """Delete the batches of a tenant that is being deleted."""
    ids = sa.select(batches.c.batch_id).where(batches.c.tenant == tenant)
    await connection.execute(sa.delete(batch_rows).where(batch_rows.c.batch_id.in_(ids)))
    await connection.execute(sa.delete(batches).where(batches.c.tenant == tenant))


def _name(tenant: str, batch_id: str) -> str:
    return f"tenants/{tenant}/batches/{batch_id}"


async def _batch(
    connection: AsyncConnection, batch_id: str, tenant: str | None = None, *, locks: bool = False
) -> Batch:
    batch = await _find(connection, batch_id, locks=locks)
    if batch is None or tenant not in (None, batch.new.owner.tenant):
        raise ResourceNotFound(f"batch {batch_id[:80]!r} not found", field="batch_id")
    return batch


async def _find(connection: AsyncConnection, batch_id: str, *, locks: bool = False) -> Batch | None:
    query = sa.select(batches).where(batches.c.batch_id == batch_id)
    if locks:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else batch_of(row)


async def _move(
    connection: AsyncConnection, batch: Batch, status: str, now_ms: int, **values: Any
) -> None:
    """Give a batch a status, which may be the one that it has, and further values."""
    assert status == batch.status or status in MOVES[batch.status], (batch.status, status)
    times = {each: milliseconds(time) for each, time in batch.times.items()}
    times.setdefault(status, now_ms)
    await connection.execute(
        sa.update(batches)
        .where(batches.c.batch_id == batch.batch_id)
        .values(status=status, times=json.dumps(times), **values)
    )


async def _add_event(connection: AsyncConnection, batch: Batch, status: str, now_ms: int) -> None:
    assert status in (COMPLETED, EXPIRED, CANCELLED, FAILED)
    await add_event(
        connection,
        batch.new.owner.tenant,
        f"batch.{status}",
        batch.batch_id,
        f"{batch.batch_id}/{status}",
        now_ms,
    )
