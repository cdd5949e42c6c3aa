"""Deletes what is left of files: expired ones, uploads that broke off with their process, bytes of
no file; and marks files whose bytes are lost, until they are there again, as after a broker was
restored later than the database.

Nothing waits for it: what has expired, or is not whole, is not found already.
"""

from __future__ import annotations

import asyncio
import logging

from headrace.bus import BusError
from headrace.bus.objects import Objects
from headrace.cancellation import recheck_cancelled
from headrace.errors import ControlUnavailable
from headrace_control.base.files import ERROR, PROCESSED, UPLOADING
from headrace_control.files.file_store import FileStore
from headrace_control.store.files.rows import Files

log = logging.getLogger(__name__)

EVERY_S = 60.0
WHOLE_EVERY = 10
"""Every so many rounds all names of objects are read."""


class FileSweep:
    """Runs in the active process, the only one that stores files."""

    def __init__(self, rows: Files, objects: Objects, store: FileStore) -> None:
        self._rows, self._objects, self._store = rows, objects, store

    async def run(self, *, every_s: float = EVERY_S) -> None:
        """Sweep again and again, until cancelled; a broker or database that is away delays it."""
        turn = 0
        while True:
            recheck_cancelled()
            try:
                await self.expire()
                if turn % WHOLE_EVERY == 0:
                    await self.compare()
                turn += 1
            except (BusError, ControlUnavailable) as error:
                log.warning("files.not_swept", extra={"why": str(error)})
            await asyncio.sleep(every_s)

    async def expire(self) -> None:
        """Delete the files that have expired.

        Raises:
            BusError: the bytes of some were not deleted; `compare` deletes them.
        """
        expired = await self._rows.delete_expired()
        if expired:
            log.info("files.expired", extra={"files": len(expired)})
        for file_id in expired:
            await self._objects.delete_object(file_id)

    async def compare(self) -> None:
        """Make rows and objects one again, after whatever has happened to either."""
        # Why in this order: an object is there from before its row is whole until after its row is
        # deleted. So a row that was whole before the names are read, and is none of them, has lost
        # its bytes; and a name that has no row after they were read has none any more.
        whole = await self._rows.ids(PROCESSED)
        names = await self._objects.object_names()
        broken = await self._rows.ids(UPLOADING) - self._store.uploading
        orphans = names - await self._rows.ids() - self._store.uploading
        lost = whole - names
        found = await self._rows.ids(ERROR) & names
        if found:
            log.info("files.found", extra={"files": len(found)})
            await self._rows.mark_found(sorted(found))
        if lost:
            log.error("files.lost", extra={"files": len(lost), "first": min(lost)})
            await self._rows.mark_lost(sorted(lost))
        if broken or orphans:
            counts = {"uploads": len(broken), "orphans": len(orphans)}
            log.warning("files.left_behind", extra=counts)
        await self._rows.discard(sorted(broken))
        for file_id in sorted(broken | orphans):
            await self._objects.delete_object(file_id)
