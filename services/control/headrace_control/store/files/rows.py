"""Rows of files: reserved before the first byte is stored, and complete once the last one is."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.bus.objects import StoredObject
from headrace.errors import (
    ControlUnavailable,
    InsufficientQuota,
    InvalidRequest,
    ResourceNotFound,
)
from headrace_control.base.files import (
    ERROR,
    PROCESSED,
    UPLOADING,
    File,
    FileLimits,
    FileQuery,
    NewFile,
)
from headrace_control.base.published_rows import EPOCH, milliseconds, time_of
from headrace_control.base.records import Actor
from headrace_control.store.database.file_tables import batches, files
from headrace_control.store.database.published import in_parts
from headrace_control.store.database.transactions import Database

_IS_UPLOADING = files.c.status == UPLOADING


class Files:
    """A file that has expired is not found, though its row is deleted later."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(
        self, file_id: str, tenant: str, size: int, limits: FileLimits | None = None
    ) -> int:
        """Add the row of a file that is going to be stored, as uploading.

        Args:
            size: in bytes, as far as it is known; it counts as stored from now on.
            limits: None: it is stored, as room has been looked for before.

        Returns:
            The bytes that it may have at most.

        Raises:
            InsufficientQuota: with it, more would be stored than the limits allow.
            ResourceNotFound: there is no such tenant.
        """
        now_ms = milliseconds(self._database.now())
        values = {
            "file_id": file_id,
            "tenant": tenant,
            "purpose": "",
            "filename": "",
            "bytes": size,
            "sha256": "",
            "status": UPLOADING,
            "create_ms": now_ms,
        }
        async with self._database.writing() as connection:
            try:
                await connection.execute(sa.insert(files).values(values))
            except sa.exc.IntegrityError:
                raise ResourceNotFound(f"tenant {tenant} not found") from None
            if limits is None:
                return 1 << 62
            return size + await room_for_files(connection, tenant, limits)

    async def check_room(self, tenant: str, limits: FileLimits) -> None:
        """
        Raises:
            InsufficientQuota: more is stored than the limits allow, as what batches have written.
        """
        async with self._database.reading() as connection:
            await room_for_files(connection, tenant, limits)

    async def finish(
        self,
        file_id: str,
        new: NewFile,
        stored: StoredObject,
        *,
        by: Actor,
        limits: FileLimits | None = None,
    ) -> File:
        """Make a file that is uploading one that is stored.

        Raises:
            ControlUnavailable: its row was deleted meanwhile.
            InsufficientQuota: more is stored than the limits allow; its row is as it was.
        """
        is_file = sa.and_(files.c.file_id == file_id, _IS_UPLOADING)
        async with self._database.changing(by) as change:
            expires = new.expires_after_s
            values = {
                "purpose": new.purpose,
                "filename": new.filename,
                "bytes": stored.bytes,
                "sha256": stored.sha256,
                "status": PROCESSED,
                "create_ms": change.now_ms,
                "expire_ms": None if expires is None else change.now_ms + expires * 1000,
            }
            done = await change.execute(sa.update(files).where(is_file).values(values))
            if not done.rowcount:
                raise ControlUnavailable(
                    f"file {file_id} was deleted while it was uploaded, as another control process"
                    " does that takes over; upload it again",
                    retry_after_s=1,
                )
            if limits is not None:
                await room_for_files(change.connection, new.tenant, limits)
            details = {"purpose": new.purpose, "bytes": stored.bytes}
            await change.record(
                "files.create", _name(new.tenant, file_id), tenant=new.tenant, details=details
            )
            return await _file(change.connection, new.tenant, file_id, change.now_ms)

    async def discard(self, file_ids: Sequence[str]) -> None:
        """Delete the rows of files that are uploading."""
        async with self._database.writing() as connection:
            for some in in_parts(file_ids):
                is_one = sa.and_(files.c.file_id.in_(some), _IS_UPLOADING)
                await connection.execute(sa.delete(files).where(is_one))

    async def get(self, tenant: str, file_id: str) -> File:
        """Return a tenant's file.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        now_ms = milliseconds(self._database.now())
        async with self._database.reading() as connection:
            return await _file(connection, tenant, file_id, now_ms)

    async def list(self, tenant: str, query: FileQuery) -> tuple[tuple[File, ...], bool]:
        """Return a page of a tenant's files, the newest first, and whether there are more.

        Raises:
            InvalidRequest: there is no file `after`.
        """
        now_ms = milliseconds(self._database.now())
        found = _stored(tenant, now_ms)
        if query.purpose:
            found = found.where(files.c.purpose == query.purpose)
        key = sa.tuple_(files.c.create_ms, files.c.file_id)
        async with self._database.reading() as connection:
            if query.after:
                start = await _place(connection, tenant, query.after)
                found = found.where(key > start if query.oldest_first else key < start)
            columns = (files.c.create_ms, files.c.file_id)
            order = [c.asc() if query.oldest_first else c.desc() for c in columns]
            limited = found.order_by(*order).limit(query.limit + 1)
            rows = (await connection.execute(limited)).all()
        return tuple(map(_file_of, rows[: query.limit])), len(rows) > query.limit

    async def delete(self, tenant: str, file_id: str, *, by: Actor) -> None:
        """Delete a tenant's file.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        async with self._database.changing(by) as change:
            await _file(change.connection, tenant, file_id, change.now_ms)
            await change.execute(sa.delete(files).where(files.c.file_id == file_id))
            await change.record("files.delete", _name(tenant, file_id), tenant=tenant)

    async def delete_expired(self) -> tuple[str, ...]:
        """Delete the rows of the files that have expired, and return their ids. No event is
        written: their uploads have said when."""
        is_expired = files.c.expire_ms <= milliseconds(self._database.now())
        async with self._database.writing() as connection:
            query = sa.select(files.c.file_id).where(is_expired)
            found = tuple((await connection.execute(query)).scalars())
            await connection.execute(sa.delete(files).where(is_expired))
            return found

    async def ids(self, *statuses: str) -> frozenset[str]:
        """Return the ids of all files of these statuses; of none: of all."""
        query = sa.select(files.c.file_id)
        if statuses:
            query = query.where(files.c.status.in_(statuses))
        async with self._database.reading() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def mark_lost(self, file_ids: Sequence[str]) -> None:
        """Give files whose bytes are lost the status `error`."""
        async with self._database.writing() as connection:
            await _set_status(connection, file_ids, PROCESSED, ERROR)

    async def mark_found(self, file_ids: Sequence[str]) -> None:
        """Give files whose bytes are there again their status back."""
        async with self._database.writing() as connection:
            await _set_status(connection, file_ids, ERROR, PROCESSED)


async def _set_status(
    connection: AsyncConnection, file_ids: Sequence[str], before: str, after: str
) -> None:
    for some in in_parts(file_ids):
        is_one = sa.and_(files.c.file_id.in_(some), files.c.status == before)
        await connection.execute(sa.update(files).where(is_one).values(status=after))


def _name(tenant: str, file_id: str) -> str:
    return f"tenants/{tenant}/files/{file_id}"


def _stored(tenant: str, now_ms: int) -> sa.Select[tuple[object, ...]]:
    is_current = sa.or_(files.c.expire_ms.is_(None), files.c.expire_ms > now_ms)
    return sa.select(files).where(files.c.tenant == tenant, ~_IS_UPLOADING, is_current)


async def _file(connection: AsyncConnection, tenant: str, file_id: str, now_ms: int) -> File:
    query = _stored(tenant, now_ms).where(files.c.file_id == file_id)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise ResourceNotFound(f"file {file_id[:80]!r} not found", field="file_id")
    return _file_of(row)


async def _place(connection: AsyncConnection, tenant: str, after: str) -> sa.Tuple:
    is_file = sa.and_(files.c.file_id == after, files.c.tenant == tenant)
    query = sa.select(files.c.create_ms, files.c.file_id).where(is_file)
    if (row := (await connection.execute(query)).one_or_none()) is None:
        raise InvalidRequest(f"after is {after[:80]!r}; there is no file of this id", field="after")
    return sa.tuple_(*row, types=[files.c.create_ms.type, files.c.file_id.type])


async def room_for_files(connection: AsyncConnection, tenant: str, limits: FileLimits) -> int:
    """Return how many bytes more may be stored: what batches have written so far counts.

    Raises:
        InsufficientQuota: more is stored already.
    """
    size = sa.func.coalesce(sa.func.sum(files.c.bytes), 0)
    written = sa.func.coalesce(sa.func.sum(batches.c.output_bytes), 0)
    is_file = sa.exists().where(
        files.c.file_id.in_([batches.c.output_file_id, batches.c.error_file_id]), ~_IS_UPLOADING
    )
    of_batches = sa.select(written).where(batches.c.output_bytes > 0, ~is_file)
    counted = sa.select(sa.func.count(), size).where(files.c.tenant == tenant)
    number, tenant_bytes = (await connection.execute(counted)).one()
    mesh_bytes = await connection.scalar(sa.select(size)) or 0
    tenant_bytes += await connection.scalar(of_batches.where(batches.c.tenant == tenant)) or 0
    mesh_bytes += await connection.scalar(of_batches) or 0
    if number > limits.tenant_files:
        raise InsufficientQuota(
            f"tenant {tenant} may store {limits.tenant_files} files, and has them; delete some"
        )
    rooms = {
        f"tenant {tenant} may store": (limits.tenant_bytes, int(tenant_bytes)),
        "this mesh may store": (limits.mesh_bytes, int(mesh_bytes)),
    }
    for whose, (limit, used) in rooms.items():
        if used > limit:
            raise InsufficientQuota(
                f"{whose} {limit} bytes of files, and with this one it would be {used}; delete some"
            )
    return min(limit - used for limit, used in rooms.values())


def _file_of(row: sa.Row[tuple[object, ...]]) -> File:
    values = row._mapping
    return File(
        file_id=values["file_id"],
        tenant=values["tenant"],
        purpose=values["purpose"],
        filename=values["filename"],
        bytes=values["bytes"],
        sha256=values["sha256"],
        status=values["status"],
        create_time=time_of(values["create_ms"]) or EPOCH,
        expire_time=None if values["expire_ms"] is None else time_of(values["expire_ms"]),
    )
