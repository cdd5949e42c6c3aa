"""Connections to SQLite and PostgreSQL, by one URL."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from headrace.errors import InvalidRequest
from headrace.extras import require

WRITES = "headrace_writes"
"""Execution option of connections whose transactions will write."""
UPGRADES = "headrace_upgrades"
"""Execution option of the connection that changes the schema."""

_BUSY_MS = 10_000
"""How long a statement on SQLite waits for another process's transaction."""
_PAUSE_MS = 20
_PRAGMAS = (
    f"busy_timeout={_BUSY_MS}",
    "journal_mode=wal",
    "synchronous=normal",
    "foreign_keys=on",
)
_CONNECT_S = 10.0
_POOL = 5


def open_engine(url: str, *, application: str, schema: str = "") -> AsyncEngine:
    """Return an engine for sqlite:///PATH or for any postgresql:// URL of libpq's form.

    Args:
        application: names the connections in PostgreSQL's own lists.
        schema: PostgreSQL's schema that the tables are in; empty: that of the URL or the user.

    A file of SQLite is made if there is none, readable by its owner alone; so are, by SQLite, the
    files beside it.

    Raises:
        InvalidRequest: the URL is neither.
        MissingExtra: for PostgreSQL, the extra `postgres` is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return _open_postgres(f"postgresql://{rest}", application, schema)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return _open_sqlite(Path(rest[1:]))
    raise InvalidRequest(
        f"database_url begins with {scheme[:20]!r}; it must be sqlite:///PATH or"
        " postgresql://USER@HOST/DATABASE",
        field="database_url",
    )


def sqlite_path(url: str) -> Path | None:
    """Return the file of a sqlite:///PATH; None for another URL."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def without_password(url: str) -> str:
    """Return the URL as messages may show it."""
    return sa.make_url(url).render_as_string(hide_password=True).partition("?")[0]


def _open_postgres(url: str, application: str, schema: str) -> AsyncEngine:
    asyncpg: Any = require("postgres", "asyncpg")
    settings = {"application_name": application, **({"search_path": schema} if schema else {})}

    async def connect() -> Any:
        # asyncpg itself reads the URL: what libpq's documentation says of it holds.
        return await asyncpg.connect(url, timeout=_CONNECT_S, server_settings=settings)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=_POOL,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _execute_patiently(connection: Any, cursor: Any, statement: str) -> None:
    """Execute a pragma, again while others open the same new file: journal_mode=wal then fails at
    once, however long `busy_timeout` is."""
    for left in reversed(range(_BUSY_MS // _PAUSE_MS)):
        try:
            cursor.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or not left:
                raise
            connection.run_async(lambda _: asyncio.sleep(_PAUSE_MS / 1000))
        else:
            return


def _open_sqlite(path: Path) -> AsyncEngine:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    engine = create_async_engine(
        sa.URL.create("sqlite+aiosqlite", database=str(path)),
        pool_size=_POOL,
        # Errors are logged, and texts of people must not be.
        hide_parameters=True,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # The driver begins transactions only before it writes; we say when and how.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            for pragma in _PRAGMAS:
                _execute_patiently(connection, cursor, f"PRAGMA {pragma}")
        except BaseException:
            connection.close()  # the pool does not know it yet
            raise
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "invalidate")
    def roll_back(connection: Any, record: Any, error: Any) -> None:
        # Why: SQLite closes a connection only once its statements are finished, and one that was
        # cancelled under way is not. Until then its transaction would keep all writers waiting.
        connection.rollback()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # Why immediate: a transaction that reads first and then writes fails if another one has
        # written in between, however long it would wait.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
