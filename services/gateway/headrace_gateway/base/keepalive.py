"""Streams without events: their heads are sent in time, and comments keep them alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from headrace_gateway.base.settings import GatewaySettings


class Stream(Protocol):
    """A caller's end of server-sent events."""

    write_lock: asyncio.Lock
    """Held while something is written."""

    @property
    def silent_s(self) -> float:
        """Time since something was last written; before that, since the call came."""
        ...

    async def open_stream(self) -> None:
        """Send the head, if that has not been done."""
        ...

    async def send_events(self, events: str, *, last: bool) -> None: ...


@asynccontextmanager
async def kept_alive(
    stream: Stream, comment: Callable[[], str], settings: GatewaySettings
) -> AsyncIterator[None]:
    """Send the head, and then `comment()` whenever nothing else was written for a while.

    Raises:
        SlowReader: not even that is read.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(_beat(stream, comment, settings))
            try:
                yield
            finally:
                # Why in turn: half a head must not be left behind.
                async with stream.write_lock:
                    beat.cancel()
    except BaseExceptionGroup as group:
        # One of the two failed, and ended the other.
        raise group.exceptions[0] from None


async def _beat(stream: Stream, comment: Callable[[], str], settings: GatewaySettings) -> None:
    every_s = settings.stream_keepalive_s
    await asyncio.sleep(min(settings.stream_head_after_s, every_s) - stream.silent_s)
    await stream.open_stream()
    while True:
        if (left_s := every_s - stream.silent_s) > 0:
            await asyncio.sleep(left_s)
        else:
            await stream.send_events(comment(), last=False)
