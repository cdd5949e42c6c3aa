"""The schema: made by migrations, the same as the tables of the code, beside control's."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace_control.store import Store as ControlStore
from headrace_web.store import SchemaMismatch, Store
from headrace_web.store.database.metadata import METADATA, NAMESPACE
from headrace_web.store.database.opening import SCHEMA, open_engine


async def test_migrations_make_the_tables_of_the_code(store: Store, database_url: str) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        ours = {"include_name": lambda name, kind, _: kind != "schema" or name in (None, NAMESPACE)}
        return list(compare_metadata(MigrationContext.configure(connection, opts=ours), METADATA))

    engine = open_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_a_database_without_the_schema_is_refused(database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="run headrace db upgrade"):
        await Store.open(database_url)


async def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    engine = open_engine(database_url)
    assert await SCHEMA.upgrade(engine) == ""
    assert await SCHEMA.upgrade(engine) == SCHEMA.newest_revision()
    await engine.dispose()


async def test_the_database_may_be_controls(postgres_url: str) -> None:
    control = await ControlStore.open(postgres_url, upgrade=True)
    web = await Store.open(postgres_url, upgrade=True)
    assert await control.integrity_faults() == ()
    await web.close()
    await control.close()
