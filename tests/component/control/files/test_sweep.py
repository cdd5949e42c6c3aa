"""What is left of files is deleted, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.errors import InvalidRequest
from headrace_control.base.files import FileLimits, NewFile
from headrace_control.files.file_store import FileStore
from headrace_control.files.sweep import FileSweep
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock
from helpers.eventually import eventually

PLENTY = FileLimits(tenant_bytes=1 << 30, tenant_files=100, mesh_bytes=1 << 30)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


def new(expires_after_s: int | None = None) -> NewFile:
    return NewFile("acme", "batch", "rows.jsonl", expires_after_s)


@pytest.fixture
def sweep(store: Store, bus: JetStreamBus, files: FileStore) -> FileSweep:
    return FileSweep(store.files, bus, files)


async def test_expired_files_are_deleted_with_their_bytes(
    sweep: FileSweep, files: FileStore, store: Store, bus: JetStreamBus, clock: TestClock
) -> None:
    await files.create(new(expires_after_s=3600), pieces(b"x"))
    kept = await files.create(new(expires_after_s=7200), pieces(b"x"))
    clock.advance(3600)
    await sweep.expire()
    assert await store.files.ids() == await bus.object_names() == {kept.file_id}


async def test_what_a_killed_process_was_storing_is_deleted(
    sweep: FileSweep, store: Store, bus: JetStreamBus
) -> None:
    async def killed() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        begun.set()
        await asyncio.Future()

    begun = asyncio.Event()
    # Of another process: this one's `files` knows nothing of it, and it cleans nothing up.
    await store.files.reserve("file-killed", "acme", 600_000, PLENTY)
    storing = asyncio.create_task(bus.put_object("file-killed", killed()))
    await begun.wait()
    await sweep.compare()
    assert await store.files.ids() == await bus.object_names() == frozenset()
    storing.cancel()
    await asyncio.wait({storing})


async def test_an_upload_of_this_process_is_left_alone(sweep: FileSweep, files: FileStore) -> None:
    async def swept() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        await sweep.compare()
        yield b"y"

    file = await files.receive("acme", swept(), new, limits=PLENTY, by=ROOT)
    assert file.bytes == 600_001
    assert b"".join([piece async for piece in files.read(file)])[-2:] == b"xy"


async def test_an_upload_whose_row_was_swept_by_another_process_fails_and_leaves_nothing(
    files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    other = FileSweep(store.files, bus, FileStore(store.files, bus))

    async def swept() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        await other.compare()
        yield b"y"

    with pytest.raises(Exception, match="was deleted while it was uploaded"):
        await files.receive("acme", swept(), new, limits=PLENTY, by=ROOT)
    assert await store.files.ids() == await bus.object_names() == frozenset()


async def test_bytes_of_no_file_are_deleted(
    sweep: FileSweep, files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    kept = await files.create(new(), pieces(b"x"))
    await bus.put_object("file-orphan", pieces(b"x" * 600_000))
    await bus.put_object("file-empty", pieces())
    await sweep.compare()
    assert await store.files.ids() == await bus.object_names() == {kept.file_id}


async def test_a_file_whose_bytes_are_lost_has_an_error(
    sweep: FileSweep, files: FileStore, bus: JetStreamBus
) -> None:
    lost = await files.create(new(), pieces(b"x"))
    kept = await files.create(new(), pieces(b"x"))
    await bus.delete_object(lost.file_id)
    await sweep.compare()
    found = await files.get("acme", lost.file_id)
    assert found.status == "error"
    with pytest.raises(InvalidRequest, match="lost: upload it again"):
        await anext(files.read(found))
    assert (await files.get("acme", kept.file_id)).status == "processed"
    await files.delete("acme", lost.file_id)


async def test_a_file_whose_bytes_come_back_is_whole_again(
    sweep: FileSweep, files: FileStore, bus: JetStreamBus
) -> None:
    file = await files.create(new(), pieces(b"x"))
    await bus.delete_object(file.file_id)
    await sweep.compare()
    assert (await files.get("acme", file.file_id)).status == "error"
    await bus.put_object(file.file_id, pieces(b"x"))
    await sweep.compare()
    assert await files.get("acme", file.file_id) == file


async def test_it_runs_again_and_again(
    sweep: FileSweep, files: FileStore, store: Store, clock: TestClock
) -> None:
    running = asyncio.create_task(sweep.run(every_s=0.01))
    await files.create(new(expires_after_s=3600), pieces(b"x"))
    clock.advance(3600)

    async def is_gone() -> bool:
        return not await store.files.ids()

    await eventually(is_gone)
    running.cancel()
    await asyncio.wait({running})
