"""Whole streams, saved to files and made again from them, as nats-server itself writes them.

A snapshot keeps the sequences, times and lives of messages, which sending them anew would not. It
can be read by servers of the same or a later version.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import nats.js.errors
from nats.aio.msg import Msg

from headrace.bus import BusError, BusUnavailable
from headrace.bus.jetstream.connection import Connected, unavailable
from headrace.bus.jetstream.usage import restore_sources, save_sources
from headrace.bus.stores import BACKED_UP, REQUEST_STREAM

_CALL_S = 30.0
"""Longest silence of the broker within a snapshot: it reads or writes the disk."""
_CHUNK_BYTES = 128 * 1024
_SOURCES = "request_sources"
"""Field of a description, besides those of nats-server."""
_LAST = "204"
"""Status of the message that ends a snapshot."""


class StreamSnapshots(Connected):
    """Implements `headrace.bus.Snapshots`."""

    async def stored(self) -> dict[str, int]:
        found = {}
        for stream in BACKED_UP:
            with unavailable(stream), contextlib.suppress(nats.js.errors.NotFoundError):
                found[stream] = (await self._js.stream_info(stream)).state.messages
        return found

    async def save_stream(self, stream: str, write: Callable[[bytes], object]) -> bytes:
        chunks: asyncio.Queue[Msg] = asyncio.Queue()

        async def receive(message: Msg) -> None:
            chunks.put_nowait(message)

        inbox = self._client.new_inbox()
        with unavailable(f"snapshot of {stream}"):
            subscription = await self._client.subscribe(inbox, cb=receive)
            try:
                request = {
                    "deliver_subject": inbox,
                    "no_consumers": True,
                    "jsck": True,
                    "chunk_size": _CHUNK_BYTES,
                }
                begun = await self._call(f"$JS.API.STREAM.SNAPSHOT.{stream}", request)
                await self._read_chunks(stream, chunks, write)
            finally:
                await subscription.unsubscribe()
        description = {"config": begun["config"], "state": begun["state"]}
        if stream == REQUEST_STREAM:
            description[_SOURCES] = await save_sources(self, begun["state"]["last_seq"])
        return json.dumps(description).encode()

    async def _read_chunks(
        self, stream: str, chunks: asyncio.Queue[Msg], write: Callable[[bytes], object]
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(_CALL_S):
                    chunk = await chunks.get()
            except TimeoutError:
                raise BusUnavailable(f"snapshot of {stream}: no answer") from None
            if not chunk.data:
                status = (chunk.headers or {}).get("Status", _LAST)
                if status != _LAST:
                    raise BusError(f"snapshot of {stream}: the broker ended it with {status}")
                return
            write(chunk.data)
            if chunk.reply:
                await self._client.publish(chunk.reply)

    async def load_stream(self, stream: str, description: bytes, chunks: Iterable[bytes]) -> None:
        described = json.loads(description)
        sources = described.pop(_SOURCES, None)
        with unavailable(f"stream {stream}"):
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await self._js.delete_stream(stream)
            begun = await self._call(f"$JS.API.STREAM.RESTORE.{stream}", described)
            for chunk in chunks:
                answer = await self._client.request(
                    begun["deliver_subject"], chunk, timeout=_CALL_S
                )
                if answer.data:
                    _checked(stream, answer.data)
            done = await self._client.request(begun["deliver_subject"], b"", timeout=_CALL_S)
            _checked(stream, done.data)
        if sources is not None:
            await restore_sources(self, sources)

    async def _call(self, subject: str, request: dict[str, Any]) -> dict[str, Any]:
        answer = await self._client.request(subject, json.dumps(request).encode(), timeout=_CALL_S)
        return _checked(subject, answer.data)


def _checked(what: str, answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)
    if error := found.get("error"):
        raise BusError(f"{what}: {error.get('description', error)}")
    return found
