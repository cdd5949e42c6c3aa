"""Rows go to a gateway over one stream, which breaks with it and is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from headrace.errors import GatewayUnreachable
from headrace.internal.v1.rows_pb2 import Row, RowAnswer, RowBatch, RunRowsRequest, RunRowsResponse
from headrace.internal.v1.rows_pb2_grpc import (
    RowServiceServicer,
    add_RowServiceServicer_to_server,
)
from headrace.rpc.delivery_secret import DeliverySecret
from headrace_control.gateways.row_stream import RowStream
from helpers.eventually import eventually

BATCH = RowBatch(batch_id="batch_1f", endpoint="/v1/completions")


@dataclass
class Gateway(RowServiceServicer):
    """Keeps rows until they are to be answered."""

    leaves: bool = False
    """Once it has a message."""
    streams: int = 0
    messages: int = 0
    rows: asyncio.Queue[tuple[int, Any]] = field(default_factory=asyncio.Queue)
    """Lines, with the stream that each came by."""

    async def RunRows(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[RunRowsRequest], context: Any
    ) -> None:
        self.streams += 1
        async for message in request_iterator:
            self.messages += 1
            for row in message.rows:
                self.rows.put_nowait((row.line, context))
            if self.leaves:
                return

    async def answer_next(self) -> None:
        line, context = await self.rows.get()
        answer = RowAnswer(batch_id=BATCH.batch_id, line=line, status=200, body=b"%d" % line)
        await context.write(RunRowsResponse(answers=[answer]))


@dataclass
class Line:
    gateway: Gateway
    rows: RowStream
    port: int
    server: grpc.aio.Server


@asynccontextmanager
async def serving(gateway: Gateway, port: int = 0) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = grpc.aio.server()
    add_RowServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(None)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    gateway = Gateway()  # type: ignore[abstract]
    async with (
        serving(gateway) as (server, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Line(gateway, RowStream(channel, DeliverySecret(None)), port, server)


def run(line: Line, number: int) -> asyncio.Task[RowAnswer]:
    return asyncio.create_task(line.rows.run(BATCH, Row(line=number, body=b"{}")))


async def test_rows_share_a_stream_and_its_messages_and_each_gets_its_own_answer(
    line: Line,
) -> None:
    tasks = [run(line, number) for number in range(1, 101)]
    await eventually(lambda: line.gateway.rows.qsize() == 100)
    assert len(line.rows) == 100
    for _ in tasks:
        await line.gateway.answer_next()
    answers = [await task for task in tasks]
    assert [answer.body for answer in answers] == [b"%d" % number for number in range(1, 101)]
    assert (line.gateway.streams, len(line.rows)) == (1, 0)
    assert line.gateway.messages < 5


async def test_rows_whose_stream_breaks_are_to_be_sent_again_and_open_another(line: Line) -> None:
    lost = [run(line, number) for number in (1, 2)]
    await eventually(lambda: line.gateway.rows.qsize() == 2)
    await line.server.stop(None)
    for task in lost:
        with pytest.raises(GatewayUnreachable):
            await task
    assert len(line.rows) == 0
    again = Gateway()  # type: ignore[abstract]
    async with serving(again, line.port):

        async def answered() -> bool:
            try:
                return (await line.rows.run(BATCH, Row(line=1))).status == 200
            except GatewayUnreachable:  # gRPC waits before it connects again
                return False

        async def answering() -> None:
            while True:
                await again.answer_next()

        answers = asyncio.create_task(answering())
        await eventually(answered, within_s=20)
        answers.cancel()
        assert again.streams == 1


async def test_a_gateway_that_ends_its_stream_has_no_rows(line: Line) -> None:
    line.gateway.leaves = True
    with pytest.raises(GatewayUnreachable, match="has ended its stream of rows"):
        await run(line, 1)
    assert len(line.rows) == 0


async def test_a_row_that_is_given_up_is_not_under_way(line: Line) -> None:
    given_up = run(line, 1)
    await eventually(lambda: line.gateway.rows.qsize() == 1)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert len(line.rows) == 0
    await line.gateway.answer_next()
    other = run(line, 2)
    await line.gateway.answer_next()
    assert (await other).line == 2
