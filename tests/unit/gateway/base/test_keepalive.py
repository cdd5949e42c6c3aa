"""Streams without events: the head in time, then comments, and never after the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from headrace.errors import EngineFailed, SlowReader
from headrace_gateway.base.keepalive import kept_alive
from headrace_gateway.base.settings import GatewaySettings

SOON = GatewaySettings(stream_head_after_s=0.01, stream_keepalive_s=0.02)
NEVER = GatewaySettings(stream_head_after_s=600, stream_keepalive_s=600)


@dataclass
class Written:
    """A stream that keeps what is written; with `stalled`, its reader takes nothing."""

    stalled: bool = False
    events: list[str] = field(default_factory=list)
    write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    wrote_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def silent_s(self) -> float:
        return asyncio.get_running_loop().time() - self.wrote_s

    async def open_stream(self) -> None:
        await self._write("head")

    async def send_events(self, events: str, *, last: bool) -> None:
        await self._write(events)

    async def _write(self, what: str) -> None:
        async with self.write_lock:
            if self.stalled:
                raise SlowReader("nothing was read")
            self.events.append(what)
            self.wrote_s = asyncio.get_running_loop().time()
        if len(self.events) >= 3:
            self.enough.set()


async def test_a_silent_stream_has_its_head_and_then_comments() -> None:
    stream = Written()
    async with asyncio.timeout(20), kept_alive(stream, lambda: ": alive\n\n", SOON):
        await stream.enough.wait()
    assert stream.events[:3] == ["head", ": alive\n\n", ": alive\n\n"]


async def test_nothing_is_written_behind_the_end() -> None:
    stream = Written()
    async with kept_alive(stream, lambda: ": alive\n\n", SOON):
        await stream.send_events("data: [DONE]\n\n", last=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "what kept it alive has ended"
    assert stream.events == ["data: [DONE]\n\n"]


async def test_a_failure_of_the_answer_is_raised_as_it_is() -> None:
    with pytest.raises(EngineFailed, match="no logits"):
        async with kept_alive(Written(), lambda: ":\n\n", NEVER):
            raise EngineFailed("no logits")


async def test_a_client_that_does_not_even_read_a_comment_ends_the_answer() -> None:
    with pytest.raises(SlowReader):
        async with asyncio.timeout(20), kept_alive(Written(stalled=True), lambda: ":\n\n", SOON):
            await asyncio.Event().wait()


async def test_a_client_that_disconnects_is_a_cancellation_and_no_failure() -> None:
    begun = asyncio.Event()

    async def answer() -> None:
        async with kept_alive(Written(), lambda: ":\n\n", SOON):
            begun.set()
            await asyncio.Event().wait()

    answering = asyncio.create_task(answer())
    await begun.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
