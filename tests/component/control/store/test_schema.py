"""The schema: made by migrations, the same as the tables of the code, and checked at the start."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace.errors import ControlUnavailable, InvalidRequest
from headrace_control.base.records import Limits, Tenant
from headrace_control.store import SchemaMismatch, Store
from headrace_control.store.database.billing_tables import usage_month
from headrace_control.store.database.metadata import METADATA
from headrace_control.store.database.opening import SCHEMA, open_engine
from helpers.control_store import ROOT


async def execute(database_url: str, *statements: str) -> None:
    engine = open_engine(database_url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))
    finally:
        await engine.dispose()


async def test_an_empty_database_is_refused_until_it_is_upgraded(database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="headrace db upgrade"):
        await Store.open(database_url)
    engine = open_engine(database_url)
    assert await SCHEMA.upgrade(engine) == ""
    assert await SCHEMA.upgrade(engine) == SCHEMA.newest_revision()
    await engine.dispose()
    store = await Store.open(database_url)
    await store.close()


async def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    engine = open_engine(database_url)
    await SCHEMA.upgrade(engine)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), METADATA)
        )
    await engine.dispose()
    assert differences == []


async def test_an_older_database_gets_the_plan_free_unless_it_has_one(database_url: str) -> None:
    engine = open_engine(database_url)
    async with SCHEMA.one_upgrade(engine) as connection:
        await SCHEMA.migrate(connection, "0001")
        await connection.execute(
            sa.text("INSERT INTO plans VALUES ('free', 'Ours', '{\"tokens_per_day\": 5}', 0, 0)")
        )
        await connection.commit()
    store = await Store.open(database_url, upgrade=True)
    free = await store.plans.get("free")
    assert (free.display_name, free.limits) == ("Ours", Limits(tokens_per_day=5))
    await store.close()


async def test_tenants_of_an_older_database_get_accounts(database_url: str) -> None:
    engine = open_engine(database_url)
    async with SCHEMA.one_upgrade(engine) as connection:
        await SCHEMA.migrate(connection, "0007")
        await connection.execute(
            sa.text(
                "INSERT INTO tenants (tenant_id, display_name, default_priority, highest_priority,"
                " weight, networks, disabled, time_zone, currency, create_ms, update_ms)"
                " VALUES ('acme', '', 2, 1, 1.0, '[]', false, 'Asia/Tokyo', 'JPY', 5000, 5000)"
            )
        )
        await connection.commit()
    store = await Store.open(database_url, upgrade=True)
    found = await store.statements.account("acme")
    assert (found.time_zone, found.currency) == ("Asia/Tokyo", "JPY")
    assert (found.create_time.timestamp(), found.delete_time) == (5, None)
    await store.close()


async def test_months_of_an_older_database_are_those_of_the_last_accounts(
    database_url: str,
) -> None:
    engine = open_engine(database_url)
    async with SCHEMA.one_upgrade(engine) as connection:
        await SCHEMA.migrate(connection, "0009")
        accounts = "INSERT INTO accounts (account_id, tenant, time_zone, currency, create_ms)"
        months = "INSERT INTO usage_month VALUES"
        for statement in (
            f"{accounts} VALUES ('a1', 'acme', '', 'USD', 1), ('a2', 'acme', '', 'USD', 2)",
            f"{months} ('acme', '2026-11', '*', 'USD', 3, 30, 50)",
            f"{months} ('none', '2026-11', '*', 'USD', 4, 40, 0)",
        ):
            await connection.execute(sa.text(statement))
        await connection.commit()
    store = await Store.open(database_url, upgrade=True)
    async with engine.connect() as connection:
        rows = await connection.execute(sa.select(usage_month).order_by("account_id"))
        assert [(row.account_id, row.cost_nanos) for row in rows] == [("a2", 30), ("none", 40)]
    await engine.dispose()
    await store.close()


async def test_processes_that_start_together_upgrade_once(database_url: str) -> None:
    engines = [open_engine(database_url) for _ in range(4)]
    found = await asyncio.gather(*(SCHEMA.upgrade(engine) for engine in engines))
    assert sorted(found) == ["", *[SCHEMA.newest_revision()] * 3]
    async with engines[0].connect() as connection:
        assert await SCHEMA.revision_of(connection) == SCHEMA.newest_revision()
    for engine in engines:
        await engine.dispose()


async def test_a_newer_schema_is_refused_with_the_version_that_wrote_it(
    store: Store, database_url: str
) -> None:
    await execute(
        database_url,
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE facts SET value = '7.1.0' WHERE name = 'written_by'",
    )
    for upgrade in (False, True):
        with pytest.raises(SchemaMismatch, match=r"9999, which version 7\.1\.0 of Headrace wrote"):
            await Store.open(database_url, upgrade=upgrade)


async def test_a_connection_holds_what_refers_to_something(store: Store, database_url: str) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    statement = (
        "INSERT INTO members (tenant, person, role, create_ms) VALUES ('acme', 'x', 'owner', 0)"
    )
    with pytest.raises(sa.exc.IntegrityError):
        await execute(database_url, statement)


async def test_the_files_of_sqlite_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = await Store.open(f"sqlite:///{tmp_path}/control/headrace.db", upgrade=True)
        await store.tenants.create(Tenant("acme"), by=ROOT)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "control").iterdir()
        }
    finally:
        os.umask(before)
    await store.close()
    assert modes == dict.fromkeys(["headrace.db", "headrace.db-wal", "headrace.db-shm"], 0o600)
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o700


@pytest.mark.parametrize("url", ["", "x", "mysql://h/d", "sqlite://", "sqlite:///", "sqlite:x"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"sqlite:///PATH or postgresql://"):
        await Store.open(url)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(ControlUnavailable, match="cannot be used now") as raised:
        await Store.open("postgresql://me:hunter2@127.0.0.1:1/d?sslmode=disable")
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(ControlUnavailable, match="cannot be used now"):
        await Store.open(f"sqlite:///{path}", upgrade=True)
    assert path.read_text().startswith("not a database")
