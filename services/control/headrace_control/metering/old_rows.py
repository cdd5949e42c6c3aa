"""Deletes rows of usage that are old and in closed statements."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.errors import ControlUnavailable

log = logging.getLogger(__name__)

EVERY_S = 3600.0


class OldRows(Protocol):
    """Of the store."""

    async def delete(self, before_ms: int) -> int: ...


async def delete_old_rows(
    rows: OldRows, kept: timedelta, clock: Clock, *, every_s: float = EVERY_S
) -> None:
    """Delete them again and again, until cancelled; a database that is away delays it."""
    while True:
        recheck_cancelled()
        before_ms = int((clock.unix_s() - kept.total_seconds()) * 1000)
        deleted = 0
        try:
            while count := await rows.delete(before_ms):
                deleted += count
                # Others write in between.
                await asyncio.sleep(0)
        except ControlUnavailable as error:
            log.warning("usage.old_rows_not_deleted", extra={"why": str(error)})
        if deleted:
            log.info("usage.old_rows_deleted", extra={"rows": deleted})
        await asyncio.sleep(every_s)
