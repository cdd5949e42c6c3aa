"""headrace db, as operators run it on a mesh that is down, and on a database elsewhere."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from headrace.bus.jetstream import connect
from headrace.supervisor.servers.broker_alone import broker_alone
from headrace.supervisor.state.failures import MeshRunning
from headrace.supervisor.state.state_dir import StateDir
from headrace_control.base.records import REPUBLISH, Key
from headrace_control.store import Store
from headrace_control.store.database.opening import SCHEMA
from helpers.command import headrace
from helpers.control_store import ROOT, make_key


async def fill(state: StateDir) -> None:
    """A database with two keys, and a broker with three requests."""
    url = f"sqlite:///{state.control / 'headrace.db'}"
    store = await Store.open(url, upgrade=True)
    await make_key(store, Key("k1", "acme", display_name="Search"))
    await make_key(store, Key("k2", "acme"))
    await store.close()
    async with broker_alone(state) as (nats_url, credentials):
        bus = await connect(nats_url, name="test", credentials_file=credentials)
        for number in range(3):
            await bus.submit("chat", "bulk", b"request", message_id=str(number))
        await bus.close()


async def revoke(state: StateDir, key_id: str) -> None:
    store = await Store.open(f"sqlite:///{state.control / 'headrace.db'}")
    await store.keys.revoke("acme", key_id, by=ROOT)
    await store.close()


@pytest.mark.timeout(180)
async def test_a_backup_is_restored_on_another_machine_and_over_the_same_mesh(
    tmp_path: Path,
) -> None:
    state = StateDir(tmp_path / "mesh")
    await fill(state)
    here = ("--state-dir", str(state.folder))
    made = await headrace("db", "backup", "b.tar.gz", *here, folder=tmp_path)
    assert (made.status, made.err) == (0, "")
    assert "3 in broker/REQUESTS.snapshot" in made.out
    assert "2 in database/keys.jsonl" in made.out
    assert "without secrets/peppers" in made.out
    assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600

    there = ("--state-dir", str(tmp_path / "other"))
    unsaid = await headrace("db", "restore", "b.tar.gz", *there, folder=tmp_path)
    assert unsaid.status == 2
    assert "has 2 valid keys" in unsaid.err
    assert "choose --keep-keys or --without-keys" in unsaid.err
    other = await headrace("db", "restore", "b.tar.gz", "--keep-keys", *there, folder=tmp_path)
    assert other.status == 0, other.err
    assert "WARNING: 2 keys are valid as of " in other.out
    assert "  k1  tenant acme  Search\n" in other.out
    async with broker_alone(StateDir(tmp_path / "other")) as (url, credentials):
        bus = await connect(url, name="test", replicas=None, credentials_file=credentials)
        assert (await bus.stored())["REQUESTS"] == 3
        await bus.close()

    await revoke(state, "k2")
    refused = await headrace("db", "restore", "b.tar.gz", "--keep-keys", *here, folder=tmp_path)
    assert refused.status == 2
    assert "the database is not empty: 4 changes were made to it; --force" in refused.err
    again = await headrace(
        *("db", "restore", "b.tar.gz", "--keep-keys", "--force", *here), folder=tmp_path
    )
    assert again.status == 0, again.err
    assert "ended since the backup, and still so: 1 keys" in again.out
    assert "WARNING: 1 keys are valid" in again.out


async def test_check_and_republish_say_what_they_find(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "mesh")
    url = f"sqlite:///{state.control / 'headrace.db'}"
    store = await Store.open(url, upgrade=True)
    await make_key(store, Key("k1", "acme"))
    there = ("--database-url", url)
    republished = await headrace("db", "republish", *there, folder=tmp_path)
    assert republished.status == 0, republished.err
    assert (await store.outbox.pending())[-1].table == REPUBLISH
    chain = await store.audit.verify_chain()
    await store.close()
    checked = await headrace("db", "check", "--json", *there, folder=tmp_path)
    assert checked.status == 0, checked.err
    assert json.loads(checked.out) == {
        "schema": SCHEMA.newest_revision(),
        "faults": [],
        "audit_events": 3,
        "audit_head": chain.head,
        "audit_fault": "",
        "unpublished": 3,
    }


async def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    none = await headrace("db", "check", "--state-dir", "none", folder=tmp_path)
    assert none.status == 1
    assert none.err.startswith(f"Error: there is no database at {tmp_path}/none/control/")
    (tmp_path / "empty.db").touch()
    url = f"sqlite:///{tmp_path}/empty.db"
    old = await headrace("db", "check", "--database-url", url, folder=tmp_path)
    assert old.status == 2
    assert "run headrace db upgrade" in old.err
    upgraded = await headrace("db", "upgrade", "--database-url", url, folder=tmp_path)
    assert upgraded.out == f"the schema is {SCHEMA.newest_revision()} now; it was empty\n"
    away = "postgresql://me:hunter2@127.0.0.1:1/d?sslmode=disable"
    gone = await headrace("db", "check", "--database-url", away, folder=tmp_path)
    assert gone.status == 1
    assert "Error: the database cannot be used: " in gone.err
    assert "hunter2" not in gone.err
    assert len(gone.err.splitlines()) == 1


async def test_no_mesh_starts_while_a_command_has_its_broker(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "mesh")
    async with broker_alone(state):
        with pytest.raises(MeshRunning), state.lock():
            pass
    assert not list(state.folder.glob(".broker-*"))
    with state.lock():
        refused = await headrace(
            *("db", "backup", "b.tar.gz", "--state-dir", str(state.folder)), folder=tmp_path
        )
    assert refused.status == 1
