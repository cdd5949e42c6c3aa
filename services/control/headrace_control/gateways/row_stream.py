"""The rows that are under way at one gateway, and its other calls for them.

All rows of all batches go over one stream, in groups, and so do their answers: a call for each row
would cost control more than all else that it does for the row. The stream is opened with the first
row, and again after it broke; the rows that were under way then have no answer, and are sent again
by their feeders, to whichever gateway.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from headrace.errors import CapacityError, GatewayUnreachable, HeadraceError
from headrace.internal.v1.rows_pb2 import (
    CancelRowRequest,
    CheckModelsRequest,
    CheckModelsResponse,
    Row,
    RowAnswer,
    RowBatch,
    RunRowsRequest,
)
from headrace.internal.v1.rows_pb2_grpc import RowServiceStub
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.groups import Groups
from headrace.rpc.status import from_rpc_error

if TYPE_CHECKING:
    from headrace.internal.v1.rows_pb2_grpc import RowServiceAsyncStub

GROUP_S, GROUP_BYTES = 0.05, 1024 * 1024
"""Between two messages of rows, and of one."""
_ASK_S = 5.0
"""Longest wait for a gateway's answer to what takes it no time."""

Key = tuple[str, int]
"""Batch and line of a row."""


class RowStream:
    """`len` is the number of rows that are under way here."""

    def __init__(self, channel: grpc.aio.Channel, secret: DeliverySecret) -> None:
        self._service: RowServiceAsyncStub = RowServiceStub(channel)
        self._secret = secret
        self._under_way: dict[Key, asyncio.Future[RowAnswer]] = {}
        self._groups: Groups[tuple[RowBatch, Row]] = Groups(every_s=0.0, max_bytes=0)
        self._conversation: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._under_way)

    async def run(self, batch: RowBatch, row: Row) -> RowAnswer:
        """Return the answer to a row, which is under way at most once.

        Raises:
            CapacityError: the stream broke.
        """
        if self._conversation is None:
            self._groups = Groups(every_s=GROUP_S, max_bytes=GROUP_BYTES)
            self._conversation = asyncio.create_task(self._converse(self._groups))
        key = batch.batch_id, row.line
        answer = self._under_way[key] = asyncio.get_running_loop().create_future()
        self._groups.add((batch, row), size=len(row.body))
        try:
            answered: RowAnswer = await answer
            return answered
        finally:
            if self._under_way.get(key) is answer:
                del self._under_way[key]

    async def cancel(self, request: CancelRowRequest) -> None:
        """End a row; raises as `run`."""
        try:
            await self._service.CancelRow(request, metadata=self._secret.metadata(), timeout=_ASK_S)
        except grpc.aio.AioRpcError as error:
            raise _unreachable(error) from None

    async def check_models(self, request: CheckModelsRequest) -> CheckModelsResponse:
        """Return which models may be used; raises as `run`."""
        try:
            response: CheckModelsResponse = await self._service.CheckModels(
                request, metadata=self._secret.metadata(), timeout=_ASK_S
            )
        except grpc.aio.AioRpcError as error:
            raise _unreachable(error) from None
        return response

    async def _converse(self, groups: Groups[tuple[RowBatch, Row]]) -> None:
        """Send rows and take answers until the stream ends; nothing is under way then."""
        why: HeadraceError = GatewayUnreachable("the gateway has ended its stream of rows")
        sending = None
        try:
            call = self._service.RunRows(metadata=self._secret.metadata())
            sending = asyncio.create_task(_send(groups, call))
            async for message in call:
                for answer in message.answers:
                    self._take(answer)
        except grpc.aio.AioRpcError as error:
            why = GatewayUnreachable(from_rpc_error(error).message)
        finally:
            if sending is not None:
                sending.cancel()
            self._conversation = None
            for future in self._under_way.values():
                if not future.done():
                    future.set_exception(why)
            self._under_way.clear()

    def _take(self, answer: RowAnswer) -> None:
        future = self._under_way.get((answer.batch_id, answer.line))
        if future is not None and not future.done():
            future.set_result(answer)


async def _send(groups: Groups[tuple[RowBatch, Row]], call: Any) -> None:
    """Send rows for as long as the stream lasts; whoever reads it learns why it broke."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            messages: dict[str, RunRowsRequest] = {}
            for batch, row in await groups.next():
                message = messages.get(batch.batch_id)
                if message is None:
                    message = messages[batch.batch_id] = RunRowsRequest(batch=batch)
                message.rows.append(row)
            for message in messages.values():
                await call.write(message)


def _unreachable(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Return why a call has no answer. None of these is the row's own."""
    found = from_rpc_error(error)
    return found if isinstance(found, CapacityError) else GatewayUnreachable(found.message)
