"""A minimal HTTP/1.1 client that costs the load generator little.

A general client spends more CPU time on a streamed token than the whole mesh does, on the same
cores.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.rpc.addresses import is_https, join_host_port, split_host_port
from headrace.rpc.tls import Trust

_LINE_BYTES = 1 << 20


class ConnectionLost(Exception):
    """The server closed the connection, or does not speak HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: AsyncIterator[bytes]
    """Chunks as they arrive; read to the end before the next `post`."""
    headers: Mapping[str, str]
    """In lower case, names and values."""


class Connection:
    """One request at a time over one kept-alive connection. `close` it.

    Args:
        api_key: of every request; None: none.
        trust: for an https URL.
    """

    def __init__(self, url: str, *, api_key: str | None = None, trust: Trust | None = None) -> None:
        self._host, self._port = split_host_port(url)
        self._tls: dict[str, Any] = {}
        if is_https(url):
            ca, name = (trust["ca_file"], trust["server_name"]) if trust else (None, "")
            context = ssl.create_default_context(cafile=ca)
            self._tls = {"ssl": context, "server_hostname": name or self._host}
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request; return once the answer's headers are here.

        Raises:
            ConnectionLost, OSError: the next call connects anew.
        """
        chosen = {**self._headers, **(headers or {})}
        more = "".join(f"{name}: {value}\r\n" for name, value in chosen.items())
        if self._streams is not None:
            # Why: some servers close after an answer without announcing it.
            try:
                return await self._post(self._streams, path, body, more)
            except (ConnectionLost, ConnectionError):
                await self.close()
        self._streams = await asyncio.open_connection(
            self._host, self._port, limit=_LINE_BYTES, **self._tls
        )
        return await self._post(self._streams, path, body, more)

    async def _post(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        path: str,
        body: bytes,
        more: str,
    ) -> Answer:
        reader, writer = streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: {join_host_port(self._host, self._port)}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
            + body
        )
        await writer.drain()
        status, headers = await self._head(reader)
        return Answer(status, self._body(reader, headers), headers)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            await self.close()
            raise ConnectionLost("the server closed the connection") from None
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), headers

    async def _body(
        self, reader: asyncio.StreamReader, headers: dict[str, str]
    ) -> AsyncIterator[bytes]:
        try:
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    yield (await reader.readexactly(size + 2))[:-2]
                await reader.readuntil(b"\r\n")
            else:
                yield await reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError:
            await self.close()
            raise ConnectionLost("the server closed in the middle of an answer") from None
        if headers.get("connection") == "close":
            await self.close()


async def server_sent_events(answer: Answer) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the id, empty if there is none, and the data of each event."""
    rest = b""
    async for piece in answer.body:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            event_id = data = b""
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    data = line[6:]
                elif line.startswith(b"id: "):
                    event_id = line[4:]
            if data:
                yield event_id.decode(), data
