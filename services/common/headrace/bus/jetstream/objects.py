"""Objects in chunks, in an object store as other clients of NATS read it.

Why not nats-py's own: it reads what it puts from a blocking file, and what it gets into memory.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256

import nats.js.errors
from nats.js.api import ObjectInfo, RawStreamMsg

from headrace.bus import BusUnavailable, StoreRefused
from headrace.bus.jetstream.connection import STORE_TIMEOUT_S, Connected, unavailable
from headrace.bus.objects import ObjectDamaged, StoredObject
from headrace.bus.stores import FILE_BUCKET
from headrace.cancellation import recheck_cancelled, rechecking_cancelled

CHUNK_BYTES = 256 * 1024
_STREAM, _SUBJECTS = f"OBJ_{FILE_BUCKET}", f"$O.{FILE_BUCKET}."
_DIGEST = "SHA-256="


class StoredObjects(Connected):
    """Implements `headrace.bus.Objects`."""

    async def put_object(self, name: str, pieces: AsyncIterable[bytes]) -> StoredObject:
        try:
            return await self._put(name, pieces)
        except BaseException:
            await self.delete_object(name)
            raise

    async def _put(self, name: str, pieces: AsyncIterable[bytes]) -> StoredObject:
        digest, size, chunks = sha256(), 0, 0
        async for chunk in _chunks(pieces):
            digest.update(chunk)
            await self._publish(_chunk_subject(name), chunk)
            size, chunks = size + len(chunk), chunks + 1
        encoded = urlsafe_b64encode(digest.digest()).decode()
        info = ObjectInfo(
            name=name,
            bucket=FILE_BUCKET,
            nuid=name,
            size=size,
            chunks=chunks,
            mtime=datetime.now(UTC).isoformat(),
            digest=f"{_DIGEST}{encoded}",
        )
        # Only with it there is an object.
        await self._publish(_info_subject(name), json.dumps(info.as_dict()).encode())
        return StoredObject(size, digest.hexdigest())

    async def _publish(self, subject: str, payload: bytes) -> None:
        try:
            with unavailable(subject):
                await self._js.publish(subject, payload, stream=_STREAM)
        except BusUnavailable as error:
            # The client's name for a broker that answers, and refuses.
            if isinstance(error.__cause__, nats.js.errors.APIError):
                raise StoreRefused(error.__cause__.description or str(error)) from error
            raise
        recheck_cancelled()

    async def get_object(self, name: str) -> AsyncGenerator[bytes]:
        info = await self._info(name)
        digest, size, sequence, held = sha256(), 0, 1, b""
        for _ in range(info.chunks or 0):
            message = await self._next(_chunk_subject(name), sequence)
            if message is None:
                await self._info(name)  # raises if the object was deleted meanwhile
                raise ObjectDamaged(f"object {name}: {info.chunks} chunks were put, one is lost")
            if held:
                yield held
            held, sequence = message.data or b"", (message.seq or 0) + 1
            digest.update(held)
            size += len(held)
        encoded = urlsafe_b64encode(digest.digest()).decode()
        if size != info.size or info.digest != f"{_DIGEST}{encoded}":
            raise ObjectDamaged(f"object {name}: its bytes are not those that were put")
        if held:
            yield held

    @rechecking_cancelled
    async def _info(self, name: str) -> ObjectInfo:
        with unavailable(f"object {name}"):
            try:
                found = await self._js.get_last_msg(_STREAM, _info_subject(name))
            except nats.js.errors.NotFoundError as error:
                raise KeyError(name) from error
        info: ObjectInfo = ObjectInfo.from_response(json.loads(found.data or b""))
        return info

    @rechecking_cancelled
    async def _next(self, subject: str, sequence: int) -> RawStreamMsg | None:
        with unavailable(subject):
            try:
                return await self._js.get_msg(_STREAM, seq=sequence, subject=subject, next=True)
            except nats.js.errors.NotFoundError:
                return None

    @rechecking_cancelled
    async def delete_object(self, name: str) -> None:
        # The information first: chunks without it are no object, only what is to be deleted.
        for subject in (_info_subject(name), _chunk_subject(name)):
            with unavailable(f"object {name}"):
                await self._js.purge_stream(_STREAM, subject=subject)

    @rechecking_cancelled
    async def object_names(self) -> frozenset[str]:
        names: set[str] = set()
        read = 0
        while True:
            request = {"subjects_filter": f"{_SUBJECTS}>", "offset": read}
            with unavailable(_STREAM):
                answer = await self._client.request(
                    f"$JS.API.STREAM.INFO.{_STREAM}",
                    json.dumps(request).encode(),
                    timeout=STORE_TIMEOUT_S,
                )
            page = json.loads(answer.data)
            if "error" in page:
                raise BusUnavailable(f"{_STREAM}: {page['error'].get('description')}")
            found = page["state"].get("subjects") or {}
            names.update(map(_name_in, found))
            read += len(found)
            if not found or read >= page.get("total", 0):
                return frozenset(names)


async def _chunks(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of the pieces in chunks of CHUNK_BYTES; the last may be smaller."""
    held = bytearray()
    async for piece in pieces:
        view = memoryview(piece)
        while view:
            taken = CHUNK_BYTES - len(held)
            held += view[:taken]
            view = view[taken:]
            if len(held) == CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _chunk_subject(name: str) -> str:
    return f"{_SUBJECTS}C.{name}"


def _info_subject(name: str) -> str:
    return f"{_SUBJECTS}M.{urlsafe_b64encode(name.encode()).decode()}"


def _name_in(subject: str) -> str:
    kind, _, name = subject.removeprefix(_SUBJECTS).partition(".")
    return urlsafe_b64decode(name).decode() if kind == "M" else name
