"""The version of a database's schema: which one it has, and how it comes to the newest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headrace.database.engine import WRITES
from headrace.errors import FailedPrecondition

_LOCK = 7265
"""Of PostgreSQL's advisory locks: processes that start together upgrade one after another."""


class SchemaMismatch(FailedPrecondition):
    """The database has an older or a newer schema than this version of Headrace."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one service, and the migrations that make them.

    Args:
        migrations: alembic's folder.
        facts: a table of the columns `name` and `value`; it gets the version that wrote last.
        namespace: PostgreSQL's schema that the tables are in; empty: that of the connection.
    """

    migrations: Path
    facts: sa.Table
    namespace: str = ""

    def newest_revision(self) -> str:
        head = self._scripts().get_current_head()
        assert head is not None
        return head

    async def revision_of(self, connection: AsyncConnection) -> str:
        """Return the revision of the database's schema; empty for an empty database."""
        return await connection.run_sync(
            lambda sync: MigrationContext.configure(sync).get_current_revision() or ""
        )

    async def check(self, engine: AsyncEngine) -> None:
        """Refuse a database that this version cannot use.

        Raises:
            SchemaMismatch: it says what to do.
        """
        async with engine.connect() as connection:
            found = await self.revision_of(connection)
            if found == self.newest_revision():
                return
            if not found or found in self._known_revisions():
                raise SchemaMismatch(
                    f"the database has schema {found or 'none'}, this version of Headrace needs"
                    f" {self.newest_revision()}: run headrace db upgrade"
                )
            writer = await connection.scalar(
                sa.select(self.facts.c.value).where(self.facts.c.name == "written_by")
            )
            raise SchemaMismatch(
                f"the database has schema {found}, which version {writer} of Headrace wrote; this"
                f" is version {version('headrace')}, which knows schemas up to"
                f" {self.newest_revision()}: install that version or a later one, or restore a"
                " backup of before"
            )

    async def upgrade(self, engine: AsyncEngine) -> str:
        """Bring the schema to the newest revision, and return that which it had.

        On SQLite all migrations are one transaction, on PostgreSQL each is one. Idempotent, and
        safe while other processes do the same.

        Raises:
            SchemaMismatch: it is newer than this version.
        """
        async with self.one_upgrade(engine) as connection:
            before = await self.revision_of(connection)
            if connection.dialect.name == "postgresql":
                await connection.rollback()  # so that each migration is a transaction
            if not before or before in self._known_revisions():
                await self.migrate(connection, self.newest_revision())
                await connection.commit()
        await self.check(engine)
        return before

    @asynccontextmanager
    async def one_upgrade(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """Give out a connection for changes of the schema, one at a time among all processes.

        On SQLite its one transaction has the database to itself; foreign keys are not enforced.
        """
        try:
            async with engine.connect() as connection:
                await connection.execution_options(**{WRITES: True})
                if engine.dialect.name == "sqlite":
                    # Remade tables would take along the rows that refer to them. The pragma has no
                    # effect within a transaction, and the driver alone begins none.
                    raw: Any = (await connection.get_raw_connection()).driver_connection
                    await raw.execute("PRAGMA foreign_keys=off")
                else:
                    await connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
                    if self.namespace:
                        await connection.execute(
                            sa.schema.CreateSchema(self.namespace, if_not_exists=True)
                        )
                    await connection.commit()
                yield connection
        finally:
            # Ends the lock, and what was set for this connection alone.
            await engine.dispose()

    async def migrate(self, connection: AsyncConnection, revision: str) -> None:
        """Bring the schema to a revision; in the transaction of the connection, if there is one."""

        def run(sync: sa.Connection) -> None:
            config = Config(attributes={"connection": sync})
            config.set_main_option("script_location", str(self.migrations))
            command.upgrade(config, revision)

        await connection.run_sync(run)
        await self._write_version(connection)

    def check_known(self, revision: str) -> None:
        """Refuse the schema of a later version.

        Raises:
            SchemaMismatch: this version does not know it.
        """
        if revision not in self._known_revisions():
            raise SchemaMismatch(
                f"the backup has schema {revision}; this is version {version('headrace')}, which"
                f" knows schemas up to {self.newest_revision()}: install the version that made it"
            )

    async def _write_version(self, connection: AsyncConnection) -> None:
        fact: dict[str, Any] = {"name": "written_by", "value": version("headrace")}
        await connection.execute(sa.delete(self.facts).where(self.facts.c.name == fact["name"]))
        await connection.execute(sa.insert(self.facts).values(fact))

    def _known_revisions(self) -> frozenset[str]:
        return frozenset(each.revision for each in self._scripts().walk_revisions())

    def _scripts(self) -> ScriptDirectory:
        return ScriptDirectory(str(self.migrations))
