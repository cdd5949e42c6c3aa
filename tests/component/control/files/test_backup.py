"""Files in backups: rows and bytes of before, and nothing that was under way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.testing.nats_server import nats_server
from headrace_control.base.files import NewFile
from headrace_control.files.file_store import FileStore
from headrace_control.files.sweep import FileSweep
from headrace_control.store import Store
from headrace_control.store.backup.archive import open_archive
from headrace_control.store.backup.restoring import restore_broker, restore_database
from headrace_control.store.backup.saving import save_backup

NEW = NewFile("acme", "batch", "rows.jsonl")


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_files_are_restored_with_their_bytes(
    files: FileStore, store: Store, database_url: str, bus: JetStreamBus, tmp_path: Path
) -> None:
    data = Random(1).randbytes(1_000_000)
    file = await files.create(NEW, pieces(data))
    await store.files.reserve("file-unfinished", "acme", 1)
    await bus.put_object("file-unfinished", pieces(b"x"))
    path, restored_url = tmp_path / "b.tar.gz", f"sqlite:///{tmp_path}/restored.db"
    await save_backup(database_url, bus, path)
    async with nats_server(tmp_path / "other") as server:
        other = await connect(server.url, name="other")
        with open_archive(path) as archive:
            await restore_broker(archive, other)
            await (await Store.open(restored_url, upgrade=True)).close()
            await restore_database(archive, restored_url, keep_keys=False)
        restored = await Store.open(restored_url)
        found = FileStore(restored.files, other)
        await FileSweep(restored.files, other, found).compare()
        assert await restored.files.ids() == await other.object_names() == {file.file_id}
        same = await found.get("acme", file.file_id)
        assert same == file
        assert b"".join([piece async for piece in found.read(same)]) == data
        await restored.close()
        await other.close()
