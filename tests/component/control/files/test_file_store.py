"""Files: stored whole or not at all, each of one tenant, and within what may be stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.errors import InsufficientQuota, InvalidRequest, ResourceNotFound
from headrace_control.base.files import UPLOADING, File, FileLimits, FileQuery, NewFile
from headrace_control.files.file_store import FileStore, new_file_id
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock

PLENTY = FileLimits(tenant_bytes=1 << 30, tenant_files=100, mesh_bytes=1 << 30)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(files: FileStore, file: File) -> bytes:
    return b"".join([piece async for piece in files.read(file)])


def new(tenant: str = "acme", filename: str = "rows.jsonl", purpose: str = "batch") -> NewFile:
    return NewFile(tenant, purpose, filename)


async def receive(
    files: FileStore, *data: bytes, limits: FileLimits = PLENTY, declared: int = 0
) -> File:
    return await files.receive(
        "acme", pieces(*data), new, limits=limits, declared_bytes=declared, by=ROOT
    )


async def nothing_is_left(store: Store, bus: JetStreamBus) -> bool:
    return await store.files.ids() == frozenset() == await bus.object_names()


async def test_a_file_is_read_as_it_was_stored(files: FileStore, clock: TestClock) -> None:
    data = b'{"custom_id": "1"}\n' * 40_000
    file = await files.create(new(), pieces(data[:9], data[9:]), by=ROOT)
    assert (file.tenant, file.purpose, file.filename) == ("acme", "batch", "rows.jsonl")
    assert (file.bytes, file.sha256) == (len(data), sha256(data).hexdigest())
    assert (file.status, file.create_time, file.expire_time) == ("processed", clock.now, None)
    assert await files.get("acme", file.file_id) == file
    assert await read(files, file) == data


async def test_another_tenant_has_no_file_of_the_id(files: FileStore) -> None:
    file = await files.create(new(), pieces(b"x"))
    for call in (files.get, files.delete):
        with pytest.raises(ResourceNotFound, match="not found"):
            await call("other", file.file_id)
    assert await files.list("other", FileQuery()) == ((), False)
    with pytest.raises(InvalidRequest, match="after"):
        await files.list("other", FileQuery(after=file.file_id))
    assert await read(files, await files.get("acme", file.file_id)) == b"x"


async def test_a_list_has_pages_in_both_orders(files: FileStore, clock: TestClock) -> None:
    made = []
    for number in range(5):
        clock.advance(number % 2)  # several of one moment
        purpose = "batch" if number % 2 else "user_data"
        made.append(await files.create(new(filename=f"{number}", purpose=purpose), pieces(b"x")))
    expected = sorted(made, key=lambda file: (file.create_time, file.file_id))
    for oldest_first in (True, False):
        found: list[File] = []
        more = True
        while more:
            query = FileQuery(
                after=found[-1].file_id if found else "", limit=2, oldest_first=oldest_first
            )
            page, more = await files.list("acme", query)
            found += page
        assert found == (expected if oldest_first else expected[::-1])
    batches, _ = await files.list("acme", FileQuery(purpose="batch"))
    assert {file.filename for file in batches} == {"1", "3"}


async def test_a_deleted_file_is_gone_with_its_bytes(
    files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    file = await files.create(new(), pieces(b"x"))
    await files.delete("acme", file.file_id)
    with pytest.raises(ResourceNotFound):
        await files.get("acme", file.file_id)
    assert await nothing_is_left(store, bus)


async def test_an_expired_file_is_not_found(files: FileStore, clock: TestClock) -> None:
    kept = NewFile("acme", "batch", "rows.jsonl", expires_after_s=3600)
    file = await files.create(kept, pieces(b"x"))
    assert file.expire_time == clock.after(3600)
    clock.advance(3599.999)
    assert await files.get("acme", file.file_id) == file
    clock.advance(0.001)
    with pytest.raises(ResourceNotFound):
        await files.get("acme", file.file_id)
    assert await files.list("acme", FileQuery()) == ((), False)


async def test_a_file_of_no_tenant_is_refused(files: FileStore, bus: JetStreamBus) -> None:
    with pytest.raises(ResourceNotFound, match="tenant nobody"):
        await files.create(new("nobody"), pieces(b"x"))
    assert await bus.object_names() == frozenset()


async def test_a_broken_upload_leaves_nothing(
    files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        assert await store.files.ids(UPLOADING)
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await files.receive("acme", broken(), new, limits=PLENTY, by=ROOT)
    assert await nothing_is_left(store, bus)


async def test_a_cancelled_upload_leaves_nothing(
    files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        begun.set()
        await asyncio.Future()

    task = asyncio.create_task(files.receive("acme", stuck(), new, limits=PLENTY, by=ROOT))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await nothing_is_left(store, bus)
    assert files.uploading == set()


async def test_a_file_that_is_uploading_is_none_yet(files: FileStore, store: Store) -> None:
    async def looking() -> AsyncIterator[bytes]:
        (file_id,) = await store.files.ids(UPLOADING)
        with pytest.raises(ResourceNotFound):
            await files.get("acme", file_id)
        assert await files.list("acme", FileQuery()) == ((), False)
        yield b"x"

    await files.create(new(), looking())


async def test_a_file_of_a_known_id_is_stored_once(files: FileStore) -> None:
    file_id = new_file_id()
    first = await files.create(new(), pieces(b"first"), file_id=file_id)
    again = await files.create(new(), pieces(b"again"), file_id=file_id)
    assert again == first
    assert await read(files, again) == b"first"


async def test_no_more_bytes_are_stored_than_a_tenant_may(
    files: FileStore, store: Store, bus: JetStreamBus
) -> None:
    limits = FileLimits(tenant_bytes=1000, tenant_files=100, mesh_bytes=1 << 30)
    await receive(files, b"x" * 600, limits=limits)
    with pytest.raises(InsufficientQuota, match=r"acme may store 1000 bytes .* would be 1001"):
        await receive(files, b"x" * 401, limits=limits, declared=401)
    with pytest.raises(InsufficientQuota, match="room for 400 bytes more"):
        await receive(files, b"x" * 300, b"x" * 101, limits=limits)
    assert len(await bus.object_names()) == len(await store.files.ids()) == 1
    await receive(files, b"x" * 400, limits=limits, declared=400)
    # What the mesh itself makes is stored all the same, and counts.
    await files.create(new(purpose="batch_output"), pieces(b"x"))
    with pytest.raises(InsufficientQuota):
        await receive(files, limits=limits)


async def test_what_batches_wrote_beyond_the_limit_leaves_no_room_for_more(
    files: FileStore,
) -> None:
    limits = FileLimits(tenant_bytes=1000, tenant_files=100, mesh_bytes=1 << 30)
    await files.create(new(), pieces(b"x" * 1000))
    await files.check_room("acme", limits)
    await files.create(new(), pieces(b"x"))
    with pytest.raises(InsufficientQuota, match="may store 1000 bytes"):
        await files.check_room("acme", limits)


async def test_uploads_at_once_share_what_a_tenant_may_store(files: FileStore) -> None:
    limits = FileLimits(tenant_bytes=1000, tenant_files=100, mesh_bytes=1 << 30)
    both_begun = asyncio.Barrier(2)

    async def waiting() -> AsyncIterator[bytes]:
        yield b"x" * 600
        await both_begun.wait()

    uploads = [files.receive("acme", waiting(), new, limits=limits, by=ROOT) for _ in range(2)]
    found = await asyncio.gather(*uploads, return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["File", "InsufficientQuota"]
    page, _ = await files.list("acme", FileQuery())
    assert [file.bytes for file in page] == [600]


async def test_no_more_files_are_stored_than_a_tenant_may(files: FileStore) -> None:
    limits = FileLimits(tenant_bytes=1000, tenant_files=2, mesh_bytes=1 << 30)
    await receive(files, limits=limits)
    await receive(files, limits=limits)
    with pytest.raises(InsufficientQuota, match="may store 2 files"):
        await receive(files, limits=limits)


async def test_tenants_together_store_no_more_than_the_mesh_may(files: FileStore) -> None:
    limits = FileLimits(tenant_bytes=1000, tenant_files=100, mesh_bytes=1000)
    await files.create(new("other"), pieces(b"x" * 700))
    with pytest.raises(InsufficientQuota, match="this mesh may store 1000 bytes"):
        await receive(files, b"x", limits=limits, declared=301)


async def test_a_tenant_is_deleted_with_its_files(files: FileStore, store: Store) -> None:
    await files.create(new(), pieces(b"x"))
    kept = await files.create(new("other"), pieces(b"x"))
    await store.tenants.delete("acme", by=ROOT)
    assert await store.files.ids() == {kept.file_id}
