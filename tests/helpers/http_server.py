"""A real HTTP server that answers as it is told, one answer a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Asked:
    line: str
    """As `POST /v1 HTTP/1.1`."""
    headers: dict[str, str]
    body: bytes


def answer(status: int = 200, body: str = "{}", **headers: str) -> bytes:
    """A whole answer, after which the connection ends."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in names.items()]
    content = body.encode()
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def broken(body: str) -> bytes:
    """An answer that ends before its length."""
    return answer(body=body + " " * 99)[:-99]


@dataclass
class HttpServer:
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    answers: list[bytes | None] = field(default_factory=list)
    """Given out in order, the last again and again; None never answers."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                await self._answer(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append(Asked(head[0], headers, body))
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if said is None:
            await reader.read()  # until the client gives up
        else:
            writer.write(said)
            await writer.drain()


@asynccontextmanager
async def http_server(*answers: bytes | None) -> AsyncIterator[HttpServer]:
    served = HttpServer(answers=list(answers))
    server = await asyncio.start_server(served.serve, "127.0.0.1", served.port)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        await server.wait_closed()
