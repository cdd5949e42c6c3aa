"""The load generator against a server of canned answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.bench.figures import Outcome
from headrace.bench.load import Load, run

TEXT = {"choices": [{"index": 0, "delta": {"content": "word"}}]}
LAST = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}


@asynccontextmanager
async def answering(*events: str) -> AsyncIterator[str]:
    """A server that answers every request with these events, a chunk each, and closes."""
    chunks = [f"data: {event}\n\n" for event in events]
    body = "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in chunks)
    head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(f"{head}{body}0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def outcome_of(*events: str, done_mark: bool = True) -> Outcome:
    async with answering(*events) as url:
        load = Load(url, "any", done_mark=done_mark)
        (outcome,) = await run(load, concurrency=1, requests=1)
    return outcome


async def test_tokens_are_what_the_server_counts_and_pieces_what_arrives() -> None:
    outcome = await outcome_of(json.dumps(TEXT), json.dumps(TEXT), json.dumps(LAST), "[DONE]")
    assert outcome.error is None
    assert outcome.output_tokens == 3
    assert len(outcome.text_times_s) == 2


async def test_a_stream_without_done_mark_is_an_error() -> None:
    outcome = await outcome_of(json.dumps(TEXT), json.dumps(LAST))
    assert outcome.error == "the stream ended without [DONE]"


async def test_a_server_may_be_configured_as_sending_no_done_mark() -> None:
    outcome = await outcome_of(json.dumps(TEXT), json.dumps(LAST), done_mark=False)
    assert outcome.error is None
    assert outcome.output_tokens == 3
