"""DeliveryService: receives the output that workers stream to this gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from headrace.errors import InvalidRequest
from headrace.internal.v1 import delivery_pb2_grpc
from headrace.internal.v1.delivery_pb2 import DeliverRequest, DeliverResponse
from headrace.rpc.status import abort
from headrace_gateway.base import metrics
from headrace_gateway.request.logprob_columns import UnequalColumns
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.stream.lost_attempts import LostAttempts
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_budgets import OutputBudgets
from headrace_gateway.stream.worker_stream import WorkerStream

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[DeliverRequest, DeliverResponse]


class DeliveryService(delivery_pb2_grpc.DeliveryServiceServicer):
    def __init__(
        self,
        requests: OpenRequests,
        lost_attempts: LostAttempts,
        budgets: OutputBudgets,
        last_token: LastTokenClock,
    ) -> None:
        self._requests, self._budgets = requests, budgets
        self._lost_attempts = lost_attempts
        self._last_token = last_token

    async def Deliver(  # type: ignore[override]  # noqa: N802 - the coroutine style of grpc.aio
        self, request_iterator: AsyncIterator[DeliverRequest], context: Any
    ) -> None:
        first = await anext(aiter(request_iterator), None)
        if first is None:
            return
        if not first.worker_id:
            await abort(
                context, InvalidRequest("the first message names its worker", field="worker_id")
            )
        line = WorkerStream(
            first.worker_id, self._requests, self._lost_attempts.lose, self._budgets
        )
        log.info("delivery.opened", extra={"worker_id": line.worker_id})
        metrics.worker_streams.inc()
        malformed: UnequalColumns | None = None
        try:
            malformed = await self._converse(line, first, request_iterator, context)
        finally:
            # Whatever ended the stream, its unfinished slots are waited for, then lost.
            bindings = line.unbind_all()
            metrics.worker_streams.dec()
            log.info("delivery.closed", extra={"worker_id": line.worker_id, "bound": len(bindings)})
            self._lost_attempts.on_stream_broken(line.worker_id, bindings)
        if malformed is not None:
            log.error("delivery.malformed", extra={"worker_id": line.worker_id, "fault": malformed})
            await abort(context, InvalidRequest(str(malformed)))

    async def _converse(
        self,
        line: WorkerStream,
        first: DeliverRequest,
        rest: AsyncIterator[DeliverRequest],
        context: Context,
    ) -> UnequalColumns | None:
        malformed = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_write(line, context))
            try:
                self._take(line, first)
                async for message in rest:
                    self._take(line, message)
            except UnequalColumns as error:
                # Why: carried out by hand, because a TaskGroup would wrap it, and the abort.
                malformed = error
            line.finish()
        return malformed

    def _take(self, line: WorkerStream, message: DeliverRequest) -> None:
        if line.take(message):
            self._last_token.record_token()


async def _write(line: WorkerStream, context: Context) -> None:
    while (response := await line.response()) is not None:
        await context.write(response)
