"""Closes months some days after their end, so that their statements stay as they are.

What is recorded of a month after that is in the next statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from headrace.cancellation import recheck_cancelled
from headrace.errors import ControlUnavailable
from headrace_control.base.accounts.statement import Statement

log = logging.getLogger(__name__)

EVERY_S = 3600.0


class Statements(Protocol):
    """Of the store."""

    async def close_due(self, after: timedelta, *, by_key: bool = False) -> Sequence[Statement]: ...


async def close_months(
    statements: Statements, after: timedelta, *, by_key: bool, every_s: float = EVERY_S
) -> None:
    """Close what is due again and again, until cancelled; a database that is away delays it."""
    while True:
        recheck_cancelled()
        try:
            for each in await statements.close_due(after, by_key=by_key):
                of = {"tenant": each.account.tenant, "month": each.month}
                log.info("statements.closed", extra={**of, "sequence": each.sequence})
        except ControlUnavailable as error:
            log.warning("statements.not_closed", extra={"why": str(error)})
        await asyncio.sleep(every_s)
