"""RowService: runs the rows of batches, through the endpoints that clients call."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.auth.caller import Caller
from headrace.clock import Clock
from headrace.errors import (
    GatewayUnreachable,
    HeadraceError,
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
    RowCaller,
    RunRowRequest,
    RunRowResponse,
)
from headrace.internal.v1.rows_pb2_grpc import RowServiceServicer
from headrace.request_keys import request_key
from headrace.rpc.channels import MAX_MESSAGE_BYTES
from headrace.rpc.status import abort
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.endpoint import Endpoint, HttpCall, errors_sent
from headrace_gateway.api.http.errors import OPENAI_ERRORS
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.openai import embeddings, generation
from headrace_gateway.base.calls import BatchRow, Call, Context
from headrace_gateway.resume.row_retries import RETRY_S, retry_after_s

ENDPOINTS: dict[str, Endpoint[Any]] = {
    "/v1/chat/completions": generation.chat,
    "/v1/completions": generation.completions,
    "/v1/embeddings": embeddings.embed,
}
MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
"""Of a row, so that its message has room for the rest."""


class RowService(RowServiceServicer):
    """Of several calls for a row that runs here, each gets the one answer."""

    def __init__(
        self, services: ApiServices, clock: Clock, *, why_not_ready: Callable[[], str | None]
    ) -> None:
        """`why_not_ready`: why this gateway cannot admit requests now; None if it can."""
        self._services, self._clock = services, clock
        self._why_not_ready = why_not_ready
        self._running: dict[str, _Running] = {}
        """By the key of the row's name."""

    async def close(self) -> None:
        """Stop reading. Requests in the background go on at other gateways."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def RunRow(self, request: RunRowRequest, context: Context) -> RunRowResponse:
        if (endpoint := ENDPOINTS.get(request.endpoint)) is None:
            known = ", ".join(ENDPOINTS)
            fact = f"endpoint is {request.endpoint[:64]!a}; rows may be for {known}"
            await abort(context, InvalidRequest(fact, field="endpoint"))
        await self._require_ready(context)
        row = BatchRow(request.batch_id, request.line, request.fresh)
        key = request_key(request.caller.tenant, row.name)
        if (running := self._running.get(key)) is None:
            reply = RowReply(row.name)
            task = asyncio.create_task(self._run(request, row, endpoint, reply))
            self._running[key] = running = _Running(task, reply)
            task.add_done_callback(lambda _: self._running.pop(key, None))
        try:
            # Why shielded: control may die and call again, and what is computed twice costs twice.
            return await asyncio.shield(running.task)
        except asyncio.CancelledError:
            if not running.task.cancelled():
                raise
            await abort(context, RequestCancelled(f"row {row.name} was cancelled"))

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
        await self._require_ready(context)
        caller = _caller(request.caller)
        return CheckModelsResponse(
            refusals=[self._refusal(model, caller) for model in request.models]
        )

    async def _require_ready(self, context: Context) -> None:
        # Why: no health check comes between control and this gateway, and a gateway that has just
        # begun knows no model, so that every row would be an error.
        if (problem := self._why_not_ready()) is not None:
            fact = f"this gateway is not ready: {problem}"
            await abort(context, GatewayUnreachable(fact, retry_after_s=RETRY_S))

    def _refusal(self, model: str, caller: Caller) -> str:
        try:
            self._services.catalog.get(model, caller)
        except ModelNotFound as error:
            return error.message
        except NoWorker:
            pass  # it may have one later
        return ""

    async def _run(
        self, request: RunRowRequest, row: BatchRow, endpoint: Endpoint[Any], reply: RowReply
    ) -> RunRowResponse:
        call = Call(
            caller=_caller(request.caller),
            request_id=row.name,
            time_remaining_s=request.deadline.ToNanoseconds() / 1e9 - self._clock.unix_s(),
            trace_context={},
            row=row,
        )
        with reply.counter:
            async with errors_sent(reply):
                http = HttpCall(self._services, call, reply, reply.counter)
                await endpoint.serve(http, request.body)
        return reply.response()


def _caller(given: RowCaller) -> Caller:
    return Caller(
        given.tenant,
        scopes=frozenset(given.scopes),
        models=frozenset(given.models),
        key_id=given.key_id,
        person=given.person,
    )


class RowReply(Reply):
    """Collects the response to a row."""

    def __init__(self, request_id: str) -> None:
        self._written, self.counter = _Written(), CallCounter("batch")
        super().__init__(self._written, OPENAI_ERRORS, request_id, self.counter)
        self._retry_after_s: float | None = None

    async def fail(
        self, error: HeadraceError, usage: Usage | None = None, so_far: bytes = b""
    ) -> None:
        self._retry_after_s = retry_after_s(error)
        await super().fail(error, usage, so_far)

    def response(self) -> RunRowResponse:
        written = self._written
        if (size := len(written.body)) > MAX_ANSWER_BYTES:
            # Control could not receive it, and would call for the row again and again.
            too_large = OPENAI_ERRORS.error_response(
                InvalidRequest(
                    f"the answer has {size} bytes; a row's may have {MAX_ANSWER_BYTES}. Use several"
                    " rows for it"
                ),
                self.request_id,
            )
            written.status, written.body = too_large.status, bytearray(too_large.body)
        response = RunRowResponse(
            status=written.status, body=bytes(written.body), request_id=self.request_id
        )
        if self._retry_after_s is not None:
            response.retry_after.FromNanoseconds(int(self._retry_after_s * 1e9))
        return response


@dataclass(frozen=True, slots=True)
class _Running:
    task: asyncio.Task[RunRowResponse]
    reply: RowReply


class _Written:
    """A response as it is written, in pieces."""

    def __init__(self) -> None:
        self.status = 200
        self.body = bytearray()

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        self.status = int(dict(metadata).get("x-hr-status", self.status))

    async def write(self, message: Any, /) -> None:
        self.body += message.data
