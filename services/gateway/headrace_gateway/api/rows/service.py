"""RowService: runs the rows of batches, through the endpoints that clients call."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.auth.caller import Caller
from headrace.clock import Clock
from headrace.errors import (
    GatewayUnreachable,
    HeadraceError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NoWorker,
    RequestCancelled,
    RequestNotFound,
)
from headrace.internal.v1.reports_pb2 import LocateRequest
from headrace.internal.v1.rows_pb2 import (
    CancelRowRequest,
    CancelRowResponse,
    CheckModelsRequest,
    CheckModelsResponse,
    Row,
    RowAnswer,
    RowBatch,
    RowCaller,
    RunRowsRequest,
    RunRowsResponse,
)
from headrace.internal.v1.rows_pb2_grpc import RowServiceServicer
from headrace.request_keys import request_key
from headrace.rpc.groups import Groups
from headrace.rpc.status import abort
from headrace_gateway.api.http.endpoint import Endpoint, HttpCall, errors_sent
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.openai import embeddings, generation
from headrace_gateway.api.responses import create as responses
from headrace_gateway.api.rows.row_reply import RowReply, not_answered
from headrace_gateway.base.calls import BatchRow, Call, Context
from headrace_gateway.resume.row_retries import RETRY_S

log = logging.getLogger(__name__)

ENDPOINTS: dict[str, Endpoint[Any]] = {
    "/v1/chat/completions": generation.chat,
    "/v1/completions": generation.completions,
    "/v1/embeddings": embeddings.embed,
    "/v1/responses": responses.create,
}
GROUP_S, GROUP_BYTES = 0.05, 1024 * 1024
"""Between two messages of answers, and of one. Control has more rows under way than a worker has
slots, so no slot waits for an answer to arrive."""


class RowService(RowServiceServicer):
    """Of several streams that a row came by while it runs, each gets the one answer."""

    def __init__(
        self, services: ApiServices, clock: Clock, *, why_not_ready: Callable[[], str | None]
    ) -> None:
        """`why_not_ready`: why this gateway cannot admit requests now; None if it can."""
        self._services, self._clock = services, clock
        self._why_not_ready = why_not_ready
        self._running: dict[str, _Running] = {}
        """By the key of the row's name."""
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """End the streams, and stop reading. Requests in the background go on elsewhere."""
        self._closing.set()
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def RunRows(  # type: ignore[override]  # the coroutine style of grpc.aio
        self, request_iterator: AsyncIterator[RunRowsRequest], context: Any
    ) -> None:
        answers: Groups[RowAnswer] = Groups(every_s=GROUP_S, max_bytes=GROUP_BYTES)
        parts = [
            asyncio.create_task(self._take_rows(request_iterator, answers)),
            asyncio.create_task(_send(answers, context)),
            asyncio.create_task(self._closing.wait()),
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _take_rows(
        self, groups: AsyncIterator[RunRowsRequest], answers: Groups[RowAnswer]
    ) -> None:
        async for group in groups:
            batch, caller = group.batch, _caller(group.batch.caller)
            error = self._refusal_of(batch)
            for given in group.rows:
                row = BatchRow(batch.batch_id, given.line, given.fresh)
                if error is not None:
                    _add(answers, not_answered(row, error))
                    continue
                task = self._run_or_join(batch, caller, row, given)
                task.add_done_callback(partial(_add_answer, answers, row))

    def _refusal_of(self, batch: RowBatch) -> HeadraceError | None:
        """Return why none of a batch's rows can run here now, if so."""
        # Why: no health check comes between control and this gateway, and a gateway that has just
        # begun knows no model, so that every row would be an error.
        if (problem := self._why_not_ready()) is not None:
            fact = f"this gateway is not ready: {problem}"
            return GatewayUnreachable(fact, retry_after_s=RETRY_S)
        if batch.endpoint not in ENDPOINTS:
            known = ", ".join(ENDPOINTS)
            fact = f"endpoint is {batch.endpoint[:64]!a}; rows may be for {known}"
            return InvalidRequest(fact, field="endpoint")
        return None

    def _run_or_join(
        self, batch: RowBatch, caller: Caller, row: BatchRow, given: Row
    ) -> asyncio.Task[RowAnswer]:
        key = request_key(caller.tenant, row.name)
        if (running := self._running.get(key)) is None:
            reply = RowReply(row)
            # Why a task of its own: control may die and send the row again, and what is computed
            # twice costs twice.
            task = asyncio.create_task(self._run(batch, caller, given.body, reply, row))
            self._running[key] = running = _Running(task, reply)
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return running.task

    async def _run(
        self, batch: RowBatch, caller: Caller, body: bytes, reply: RowReply, row: BatchRow
    ) -> RowAnswer:
        call = Call(
            caller=caller,
            request_id=row.name,
            time_remaining_s=batch.deadline.ToNanoseconds() / 1e9 - self._clock.unix_s(),
            trace_context={},
            row=row,
        )
        with reply.counter:
            async with errors_sent(reply):
                http = HttpCall(self._services, call, reply, reply.counter)
                await ENDPOINTS[batch.endpoint].serve(http, body)
        return reply.answer()

    async def CancelRow(self, request: CancelRowRequest, context: Context) -> CancelRowResponse:
        name = BatchRow(request.batch_id, request.line).name
        running = self._running.get(request_key(request.tenant, name))
        # Why: of the run, where it is not the first.
        request_id = name if running is None else running.reply.request_id
        try:
            key = request_key(request.tenant, request_id)
            await self._services.requests.locate(key, LocateRequest.VERB_CANCEL)
        except RequestNotFound:
            # It is not submitted yet, or is several requests, which end with their reader.
            if running is not None:
                running.task.cancel()
        except HeadraceError as error:
            await abort(context, error)
        return CancelRowResponse()

    async def CheckModels(
        self, request: CheckModelsRequest, context: Context
    ) -> CheckModelsResponse:
        if (problem := self._why_not_ready()) is not None:
            fact = f"this gateway is not ready: {problem}"
            await abort(context, GatewayUnreachable(fact, retry_after_s=RETRY_S))
        caller = _caller(request.caller)
        return CheckModelsResponse(
            refusals=[self._model_refusal(model, caller) for model in request.models]
        )

    def _model_refusal(self, model: str, caller: Caller) -> str:
        try:
            self._services.catalog.get(model, caller)
        except ModelNotFound as error:
            return error.message
        except NoWorker:
            pass  # it may have one later
        return ""


@dataclass(frozen=True, slots=True)
class _Running:
    task: asyncio.Task[RowAnswer]
    reply: RowReply


async def _send(answers: Groups[RowAnswer], context: Any) -> None:
    while True:
        await context.write(RunRowsResponse(answers=await answers.next()))


def _add_answer(answers: Groups[RowAnswer], row: BatchRow, task: asyncio.Task[RowAnswer]) -> None:
    if task.cancelled():
        _add(answers, not_answered(row, RequestCancelled(f"row {row.name} was cancelled")))
    elif (error := task.exception()) is not None:
        log.error("row.broken", extra={"row": row.name}, exc_info=error)
        _add(answers, not_answered(row, InternalError("the gateway failed; its log says how")))
    else:
        _add(answers, task.result())


def _add(answers: Groups[RowAnswer], answer: RowAnswer) -> None:
    answers.add(answer, size=len(answer.body))


def _caller(given: RowCaller) -> Caller:
    return Caller(
        given.tenant,
        scopes=frozenset(given.scopes),
        models=frozenset(given.models),
        key_id=given.key_id,
        person=given.person,
    )
