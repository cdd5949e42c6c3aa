"""A backup holds database and broker, and restoring it brings nothing back to life unseen."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.errors import FailedPrecondition, InvalidRequest
from headrace.internal.v1.access_pb2 import KeyRow
from headrace.testing.nats_server import nats_server
from headrace_control.base.records import Key, Limits, Plan, Tenant
from headrace_control.store import SchemaMismatch, Store
from headrace_control.store.backup.archive import Manifest, open_archive
from headrace_control.store.backup.restoring import (
    RestoreReport,
    check_empty,
    restore_broker,
    restore_database,
)
from headrace_control.store.backup.saving import save_backup
from headrace_control.store.database.opening import SCHEMA
from helpers.control_store import (
    ROOT,
    TestClock,
    digest,
    make_key,
    make_member,
    open_session,
    replay,
)
from helpers.postgres import PostgresServer


async def fill(store: Store, clock: TestClock) -> None:
    await store.plans.create(Plan("gold", limits=Limits(tokens_per_day=2**60)), by=ROOT)
    await store.tenants.create(Tenant("acme", plan="gold", weight=1.5, disabled=True), by=ROOT)
    ann = (await make_member(store, "other", "ann@example.com", "owner")).person_id
    await make_key(store, Key("k1", "acme", display_name="公司 ☃", labels={"a": "b"}))
    await make_key(store, Key("k2", "other", person=ann, scopes=("generate",)))
    await make_key(store, Key("k3", "other"))
    await store.keys.revoke("other", "k3", by=ROOT)
    await open_session(store, "other", person=ann, expires=clock.after(600))
    await store.invitations.create(
        "other", "ben@example.com", "admin", token_hash="t", expires=clock.after(600), by=ROOT
    )


async def restore(path: Path, url: str, clock: TestClock, *, keep_keys: bool) -> RestoreReport:
    with open_archive(path) as archive:
        return await restore_database(archive, url, keep_keys=keep_keys, clock=clock)


@pytest.fixture(params=["sqlite", "postgres"])
async def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another empty database: a backup of either kind is restored into either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/other/headrace.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.new_database()


async def test_another_database_gets_all_but_sessions_and_invitations(
    store: Store, database_url: str, other_url: str, clock: TestClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    manifest = await save_backup(database_url, None, tmp_path / "b.tar.gz", clock=clock)
    assert (manifest.valid_keys, manifest.streams) == (2, ())
    await check_empty(other_url, None)
    report = await restore(tmp_path / "b.tar.gz", other_url, clock, keep_keys=True)
    assert report == RestoreReport(valid_keys=2, ended_keys=0, ended_people=0)
    other = await Store.open(other_url, clock=clock)
    assert await other.tenants.list() == await store.tenants.list()
    assert await other.plans.list() == await store.plans.list()
    assert await other.keys.list(show_ended=True) == await store.keys.list(show_ended=True)
    assert await other.people.list() == await store.people.list()
    assert await other.members.list("other") == await store.members.list("other")
    assert (await other.sessions.list()).items == ()
    assert (await other.invitations.list("other")).items == ()
    wanted = await store.outbox.all_rows()
    assert await replay(other) == {**wanted, "sessions": {}}
    chain = await other.audit.verify_chain()
    assert (chain.fault, chain.events) == ("", manifest.audit_events + 1)
    (event,) = (await other.audit.list(action="database.restore")).items
    assert json.loads(event.details)["backup_time"] == manifest.created
    await other.close()


async def test_without_keys_the_next_start_is_that_of_a_new_mesh(
    store: Store, database_url: str, clock: TestClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    path = tmp_path / "b.tar.gz"
    await save_backup(database_url, None, path, clock=clock)
    report = await restore(path, database_url, clock, keep_keys=False)
    assert report.valid_keys == 0
    assert await store.keys.count() == 0
    assert (await store.outbox.all_rows())["keys"] == {}


async def test_what_the_replaced_database_knows_as_ended_stays_ended(
    store: Store, database_url: str, clock: TestClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    path = tmp_path / "b.tar.gz"
    await save_backup(database_url, None, path, clock=clock)
    ann = await store.people.try_by_email("ann@example.com")
    assert ann is not None
    await store.people.deactivate(ann.person_id, by=ROOT)
    await make_key(store, Key("later", "acme"))
    report = await restore(path, database_url, clock, keep_keys=True)
    assert report == RestoreReport(valid_keys=1, ended_keys=1, ended_people=1)
    assert list((await store.outbox.all_rows())["keys"]) == ["k1"]
    assert (await store.people.get(ann.person_id)).deactivated
    with pytest.raises(Exception, match="key later not found"):
        await store.keys.find("later")


async def test_a_secret_that_was_rotated_since_the_backup_stays_void(
    store: Store, database_url: str, clock: TestClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    await save_backup(database_url, None, tmp_path / "b.tar.gz", clock=clock)
    rotated = await store.keys.rotate(
        "acme", "k1", digest("new"), redacted="hr_k1_...new", old_ends=clock.now, by=ROOT
    )
    await restore(tmp_path / "b.tar.gz", database_url, clock, keep_keys=True)
    key = await store.keys.find("k1")
    assert (key.digests, key.redacted) == (rotated.digests, "hr_k1_...new")
    row = KeyRow.FromString((await store.outbox.all_rows())["keys"]["k1"])
    assert [each.digest for each in row.digests] == [digest("new").digest]


async def test_an_unrelated_database_knows_nothing_of_the_backups_keys(
    store: Store, database_url: str, clock: TestClock, tmp_path: Path
) -> None:
    """As on a new machine, where the mesh was started once before the backup is restored."""
    await fill(store, clock)
    path = tmp_path / "b.tar.gz"
    await save_backup(database_url, None, path, clock=clock)
    url = f"sqlite:///{tmp_path}/new/headrace.db"
    new = await Store.open(url, upgrade=True, clock=clock)
    for number in range(20):
        await make_key(new, Key(f"n{number}", "headrace"))
    await new.close()
    with pytest.raises(FailedPrecondition, match=r"not empty: 21 changes .* --force"):
        await check_empty(url, None)
    report = await restore(path, url, clock, keep_keys=True)
    assert report == RestoreReport(valid_keys=2, ended_keys=0, ended_people=0)


async def test_a_broker_is_saved_and_restored_with_the_database(
    store: Store, database_url: str, bus: JetStreamBus, clock: TestClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    for number in range(50):
        await bus.submit("chat", "bulk", b"request" * number, message_id=f"m{number}")
    await bus.put_result("r1", b"result", kept_s=3600)
    await bus.put_row("keys", "k1", b"row of before")
    path = tmp_path / "b.tar.gz"
    manifest = await save_backup(database_url, bus, path, clock=clock)
    assert manifest.parts["broker/REQUESTS.snapshot"].items == 50
    with pytest.raises(FailedPrecondition, match=r"broker is not empty: 50 messages in REQUESTS"):
        await check_empty(f"sqlite:///{tmp_path}/x.db", bus)
    async with nats_server(tmp_path / "other") as server:
        other = await connect(server.url, name="other")
        await check_empty(f"sqlite:///{tmp_path}/x.db", other)
        with open_archive(path) as archive:
            await restore_broker(archive, other)
        lane = await other.take_over("chat", "bulk")
        found = await lane.pull(max_messages=100, timeout_s=5)
        assert [message.payload for message in found] == [b"request" * n for n in range(50)]
        assert await other.get_result("r1") == b"result"
        assert await other.rows("keys") == {}  # control makes it from the database
        await other.close()


async def test_an_archive_is_its_owners_alone_and_overwrites_nothing(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.tar.gz"
    await save_backup(database_url, None, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrites nothing"):
        await save_backup(database_url, None, path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["b.tar.gz"]


async def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch):
        await save_backup(f"sqlite:///{tmp_path}/x.db", None, tmp_path / "b.tar.gz")
    assert names(tmp_path) == []


def names(folder: Path) -> list[str]:
    """Archives, and drafts of archives."""
    return sorted(each.name for each in folder.glob("*b.tar*"))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"x" * 999])
async def test_a_damaged_archive_restores_nothing(
    database_url: str, store: Store, tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    path = tmp_path / "b.tar.gz"
    await store.tenants.create(Tenant("acme"), by=ROOT)
    await save_backup(database_url, None, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidRequest, match=r"backup of Headrace|damaged"), open_archive(path):
        pass


def rewritten(path: Path, edit: str, value: object) -> Path:
    """Return a copy of an archive whose manifest says something else."""
    copy = path.with_name("copy.tar.gz")
    with tarfile.open(path, "r:gz") as old, tarfile.open(copy, "w:gz") as new:
        for entry in old:
            opened = old.extractfile(entry)
            assert opened is not None
            if entry.name == "manifest.json":
                text = json.dumps({**json.load(opened), edit: value}).encode()
                (path.parent / "manifest").write_bytes(text)
                new.add(path.parent / "manifest", "manifest.json")
            else:
                new.addfile(entry, opened)
    return copy


async def test_a_backup_of_a_later_version_is_refused_and_changes_nothing(
    store: Store, database_url: str, clock: TestClock, tmp_path: Path
) -> None:
    await store.tenants.create(Tenant("acme"), by=ROOT)
    path = tmp_path / "b.tar.gz"
    await save_backup(database_url, None, path)
    with pytest.raises(SchemaMismatch, match="9999"):
        await restore(rewritten(path, "schema", "9999"), database_url, clock, keep_keys=True)
    with (
        pytest.raises(InvalidRequest, match="format 2"),
        open_archive(rewritten(path, "format", 2)),
    ):
        pass
    assert [each.tenant_id for each in (await store.tenants.list()).items] == ["acme"]


def test_a_manifest_lists_tables_and_streams_in_the_archives_order() -> None:
    manifest = Manifest("", "", SCHEMA.newest_revision(), 0, "", 0)
    assert (manifest.tables, manifest.streams) == ((), ())


async def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title)")
    connection.close()
    with pytest.raises(FailedPrecondition, match="songs among them"):
        await check_empty(f"sqlite:///{path}", None)
