"""Errors of a database that cannot be used now, as callers get them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa

from headrace.errors import ControlUnavailable

log = logging.getLogger(__name__)

RETRY_S = 1.0


@asynccontextmanager
async def unavailable() -> AsyncIterator[None]:
    """Raise the errors of a database that is away, busy for too long or broken as
    ControlUnavailable; all others as they are."""
    try:
        yield
    except Exception as error:
        if not _means_unavailable(error):
            raise
        log.warning("database.unavailable", extra={"why": _in_one_line(error)})
        raise ControlUnavailable(
            f"the database cannot be used now; retry in {RETRY_S:g} s", retry_after_s=RETRY_S
        ) from error


def _means_unavailable(error: Exception) -> bool:
    match error:
        case sa.exc.OperationalError() | sa.exc.InterfaceError() | sa.exc.TimeoutError():
            return True
        case sa.exc.DBAPIError():
            # Without a statement: there is no connection, for whatever reason. The last is SQLite's
            # own class: the file is no database, or is damaged.
            is_connecting = error.statement is None
            is_damaged = type(error) is sa.exc.DatabaseError
            return error.connection_invalidated or is_connecting or is_damaged
        case OSError() | TimeoutError():
            return True
    # What asyncpg raises while it connects comes as it is.
    return type(error).__module__.partition(".")[0] == "asyncpg"


def _in_one_line(error: Exception) -> str:
    """Return the error without the statement and its parameters."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
