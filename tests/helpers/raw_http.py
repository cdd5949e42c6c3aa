"""Requests byte for byte, also those that no HTTP client would send, and their answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11

ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """One connection to the edge at `url`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, method: str = "GET") -> RawAnswer:
        """Read one answer to its end; `method` determines whether it has a body."""
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        body, head = b"", None
        async with asyncio.timeout(ANSWER_S):
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(await self._reader.read(65536))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return RawAnswer(head.status_code, head.http_version.decode(), headers, body)

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawConnection]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = RawConnection(*await asyncio.open_connection(host, int(port)))
    try:
        yield connection
    finally:
        await connection.close()


async def ask(url: str, data: bytes) -> RawAnswer:
    """Send these bytes on a connection of their own; return the first answer."""
    async with connected(url) as connection:
        await connection.send(data)
        return await connection.answer("HEAD" if data.startswith(b"HEAD ") else "GET")


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request that is as it should be but for what the headers say."""
    lines = [f"{method} {path} HTTP/1.1", "host: headrace.test", *headers]
    if body or method == "POST":
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
