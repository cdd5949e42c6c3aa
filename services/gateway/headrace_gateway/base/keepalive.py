"""Streams that have nothing to say: their heads go out in time, and comments keep them alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


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


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a stream that has nothing to say says so."""

    head_after_s: float
    every_s: float


@asynccontextmanager
async def kept_alive(
    stream: Stream, words: Callable[[], str], alive: KeepAlive
) -> AsyncIterator[None]:
    """Send the head, and then `words()` whenever nothing else was written for a while.

    Raises:
        SlowReader: not even that is read.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(_beat(stream, words, alive))
            try:
                yield
            finally:
                # Why in turn: half a head must not be left behind.
                async with stream.write_lock:
                    beat.cancel()
    except BaseExceptionGroup as group:
        # One of the two failed, and ended the other.
        raise group.exceptions[0] from None


async def _beat(stream: Stream, words: Callable[[], str], alive: KeepAlive) -> None:
    await asyncio.sleep(min(alive.head_after_s, alive.every_s) - stream.silent_s)
    await stream.open_stream()
    while True:
        if (left_s := alive.every_s - stream.silent_s) > 0:
            await asyncio.sleep(left_s)
        else:
            await stream.send_events(words(), last=False)
