"""A connection between two processes that can be cut: bytes wait, and neither end is notified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.2"
"""This machine too, by another address: a process behind the line keeps its own port."""


class CutLine:
    """Carries connections to a port of this machine. What is sent while it is cut comes later."""

    def __init__(self) -> None:
        self.connections = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._to: int | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    def lead_to(self, port: int) -> None:
        self._to = port

    def cut(self) -> None:
        """From now on nothing passes, on old connections and new ones."""
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self.connections += 1
        back, forth = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends |= {writer, forth}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    def close(self) -> None:
        for end in self._ends:
            end.close()


@asynccontextmanager
async def cut_line() -> AsyncIterator[tuple[CutLine, int]]:
    """A whole line that leads nowhere yet, and the port of `HOST` where it begins."""
    line = CutLine()
    server = await asyncio.start_server(line.carry, HOST, 0)
    try:
        yield line, server.sockets[0].getsockname()[1]
    finally:
        line.mend()
        line.close()
        server.close()
