"""Removes sessions that have expired, from the database and so from the table on the bus.

Nothing waits for it: a session that has expired is refused wherever it is.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from headrace.cancellation import recheck_cancelled
from headrace.errors import ControlUnavailable

log = logging.getLogger(__name__)

EVERY_S = 60.0


class Sessions(Protocol):
    """Of the store."""

    async def delete_expired(self) -> int: ...


async def remove_expired_sessions(sessions: Sessions, *, every_s: float = EVERY_S) -> None:
    """Remove them again and again, until cancelled; a database that is away delays it."""
    while True:
        recheck_cancelled()
        try:
            if count := await sessions.delete_expired():
                log.info("sessions.expired", extra={"sessions": count})
        except ControlUnavailable as error:
            log.warning("sessions.not_removed", extra={"why": str(error)})
        await asyncio.sleep(every_s)
