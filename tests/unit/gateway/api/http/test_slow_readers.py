"""Writes to a client: in order, in pieces, and with a timeout when it reads nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from headrace.errors import SlowReader
from headrace_gateway.api.http.slow_readers import PIECE_BYTES, BoundedWrites


class Reader:
    """A call's context whose client takes what is written while it reads."""

    peer_name = "somebody"

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.taken: list[Any] = []

    async def write(self, message: Any) -> None:
        await self.reads.wait()
        self.taken.append(message)


def bounded(reader: Reader) -> BoundedWrites:
    return BoundedWrites(reader, stall_s=0.02)  # type: ignore[arg-type]


async def test_a_client_that_reads_gets_all_in_order() -> None:
    reader = Reader()
    reader.reads.set()
    writes = bounded(reader)
    for number in range(5):
        await writes.write(number)
    assert reader.taken == [0, 1, 2, 3, 4]


async def test_a_write_that_is_not_read_times_out_and_so_does_the_next() -> None:
    reader = Reader()
    writes = bounded(reader)
    with pytest.raises(SlowReader, match=r"nothing of the answer was read for 0\.02 s"):
        await writes.write("first")
    with pytest.raises(SlowReader):
        await writes.write("why")
    writes.close()
    reader.reads.set()
    await asyncio.sleep(0)
    assert reader.taken == []


async def test_a_client_that_reads_again_gets_what_waited_and_then_the_error() -> None:
    reader = Reader()
    writes = bounded(reader)
    with pytest.raises(SlowReader):
        await writes.write("first")
    reader.reads.set()
    await writes.write("why")
    assert reader.taken == ["first", "why"]


async def test_each_write_has_the_whole_time() -> None:
    reader = Reader()
    reader.reads.set()
    writes = BoundedWrites(reader, stall_s=1.0)  # type: ignore[arg-type]
    await writes.write("first")
    await asyncio.sleep(0.8)  # what is tried is time: by the first one's the second has 0.2 s
    reader.reads.clear()
    asyncio.get_running_loop().call_later(0.4, reader.reads.set)
    await writes.write("second")
    assert reader.taken == ["first", "second"]
    writes.close()


async def test_a_client_that_leaves_leaves_no_task_behind() -> None:
    reader = Reader()
    writes = bounded(reader)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(writes.write("first"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    writes.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_large_body_is_sent_in_pieces_so_that_a_slow_client_takes_some_in_time() -> None:
    reader = Reader()
    reader.reads.set()
    whole = bytes(range(256)) * (PIECE_BYTES // 100)
    await bounded(reader).write(HttpBody(content_type="application/json", data=whole))
    assert b"".join(piece.data for piece in reader.taken) == whole
    assert max(len(piece.data) for piece in reader.taken) == PIECE_BYTES
    kinds = [piece.content_type for piece in reader.taken]
    assert kinds == ["application/json", *[""] * (len(kinds) - 1)]


async def test_all_else_is_the_calls_own() -> None:
    assert bounded(Reader()).peer_name == "somebody"
