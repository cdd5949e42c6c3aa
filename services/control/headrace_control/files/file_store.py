"""Files as the rest of control uses them: created from bytes as they come, read as bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable

from headrace.bus import BusError, StoreRefused
from headrace.bus.objects import ObjectDamaged, Objects
from headrace.cancellation import run_isolated
from headrace.errors import (
    ControlUnavailable,
    HeadraceError,
    InsufficientQuota,
    InternalError,
    InvalidRequest,
    ResourceNotFound,
)
from headrace_control.base.files import PROCESSED, File, FileLimits, FileQuery, NewFile
from headrace_control.base.names import new_id
from headrace_control.base.records import SYSTEM, Actor
from headrace_control.store.files.rows import Files

log = logging.getLogger(__name__)

RETRY_S = 5.0


class FileStore:
    """A row each, and its bytes as an object of its id.

    The row is there before the first byte is stored, as uploading, and only afterwards becomes a
    file; so whatever an upload leaves behind is known by its row, or has none. `FileSweep` deletes
    both.

        file = await store.create(NewFile("acme", "batch_output", "out.jsonl"), lines())
        async for piece in store.read(file):
            ...
    """

    def __init__(self, rows: Files, objects: Objects) -> None:
        self._rows, self._objects = rows, objects
        self.uploading: set[str] = set()
        """Ids of files that this process is storing."""

    async def create(
        self, new: NewFile, pieces: AsyncIterable[bytes], *, file_id: str = "", by: Actor = SYSTEM
    ) -> File:
        """Store a file that the mesh itself makes; its bytes count already.

        Args:
            file_id: one of `new_file_id`, by which a repetition is known: where there is a file of
                this id, it is returned, and no piece is taken. Empty: a new one.

        Raises:
            ResourceNotFound: there is no such tenant.
            ControlUnavailable: broker or database are away; nothing is left of it.
        """
        if file_id:
            try:
                return await self._rows.get(new.tenant, file_id)
            except ResourceNotFound:
                await self._rows.discard([file_id])
                await self._objects.delete_object(file_id)
        return await self._store(file_id or new_file_id(), new.tenant, pieces, lambda: new, by=by)

    async def receive(
        self,
        tenant: str,
        pieces: AsyncIterable[bytes],
        described: Callable[[], NewFile],
        *,
        limits: FileLimits,
        declared_bytes: int = 0,
        by: Actor,
    ) -> File:
        """Store a file that a client sends.

        Args:
            described: called after the last piece; what the file is may come behind its bytes.
            declared_bytes: refused at once where there is no room for so many; 0: unknown.

        Raises:
            InsufficientQuota: there is no room for it, or not for so many bytes.
            ControlUnavailable: broker or database are away; nothing is left of it.
        """
        return await self._store(
            new_file_id(), tenant, pieces, described, by=by, limits=limits, size=declared_bytes
        )

    async def _store(
        self,
        file_id: str,
        tenant: str,
        pieces: AsyncIterable[bytes],
        described: Callable[[], NewFile],
        *,
        by: Actor,
        limits: FileLimits | None = None,
        size: int = 0,
    ) -> File:
        self.uploading.add(file_id)
        try:
            room = await self._rows.reserve(file_id, tenant, size, limits)
            stored = await self._objects.put_object(file_id, _bounded(pieces, room))
            return await self._rows.finish(file_id, described(), stored, by=by, limits=limits)
        except StoreRefused as error:
            await run_isolated(self._clean(file_id))
            raise ControlUnavailable(
                f"the broker cannot store the file: {error}; retry in {RETRY_S:g} s",
                retry_after_s=RETRY_S,
            ) from error
        except BaseException:
            # Why isolated: the calls of a task that was cancelled end with that.
            await run_isolated(self._clean(file_id))
            raise
        finally:
            self.uploading.discard(file_id)

    async def _clean(self, file_id: str) -> None:
        """Delete what there is of an upload that broke off; what cannot be, the sweep deletes."""
        try:
            await self._objects.delete_object(file_id)
            await self._rows.discard([file_id])
        except (BusError, HeadraceError) as error:
            log.warning("files.upload_left_behind", extra={"file": file_id, "why": str(error)})

    async def get(self, tenant: str, file_id: str) -> File:
        """Return a tenant's file.

        Raises:
            ResourceNotFound: the tenant has none of this id, or it has expired.
        """
        return await self._rows.get(tenant, file_id)

    async def check_room(self, tenant: str, limits: FileLimits) -> None:
        """Check that a tenant may have more files written; raises as `Files.check_room`."""
        await self._rows.check_room(tenant, limits)

    async def list(self, tenant: str, query: FileQuery) -> tuple[tuple[File, ...], bool]:
        """Return a page of a tenant's files, and whether there are more.

        Raises:
            InvalidRequest: there is no file `query.after`.
        """
        return await self._rows.list(tenant, query)

    async def read(self, file: File) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file, verified, in pieces of up to 256 KiB.

        Raises:
            InvalidRequest: its bytes are lost.
            InternalError: they are not those that were stored; the last piece has not been yielded.
            BusError: the broker is away.
        """
        if file.status != PROCESSED:
            raise InvalidRequest(f"the bytes of file {file.file_id} are lost: upload it again")
        try:
            async for piece in self._objects.get_object(file.file_id):
                yield piece
        except KeyError:
            raise ResourceNotFound(f"file {file.file_id} not found", field="file_id") from None
        except ObjectDamaged as error:
            log.error("files.damaged", extra={"file": file.file_id, "why": str(error)})
            raise InternalError(f"the stored bytes of file {file.file_id} are damaged") from error

    async def delete(self, tenant: str, file_id: str, *, by: Actor = SYSTEM) -> None:
        """Delete a tenant's file.

        Raises:
            ResourceNotFound: the tenant has none of this id.
        """
        await self._rows.delete(tenant, file_id, by=by)
        try:
            await self._objects.delete_object(file_id)
        except BusError as error:
            # Without its row it is no file any more; the sweep deletes its bytes.
            log.warning("files.bytes_not_deleted", extra={"file": file_id, "why": str(error)})


def new_file_id() -> str:
    return f"file-{new_id()}"


async def _bounded(pieces: AsyncIterable[bytes], room: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > room:
            raise InsufficientQuota(
                f"there is room for {room} bytes more, and the file has more; delete some files"
            )
        yield piece
