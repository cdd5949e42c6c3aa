"""BatchService: OpenAI's batches of the caller's tenant."""

# ruff: noqa: N802 - the names of the methods are the proto's

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import InvalidRequest
from headrace.v1 import batches_pb2 as pb
from headrace.v1.batches_pb2_grpc import BatchServiceServicer
from headrace_control.api.batches.batch_objects import batch_list, batch_object, listed, new_batch
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.http.replies import header, send_json
from headrace_control.api.tenancy.rules import actor
from headrace_control.base.files import BATCH
from headrace_control.base.settings import ControlSettings
from headrace_control.files.file_store import FileStore
from headrace_control.store import Store


class BatchParts(Protocol):
    @property
    def settings(self) -> ControlSettings: ...
    @property
    def store(self) -> Store: ...
    @property
    def files(self) -> FileStore: ...
    @property
    def wake_batches(self) -> Callable[[], None]: ...


class BatchService(BatchServiceServicer):
    def __init__(self, parts: BatchParts) -> None:
        self._batches, self._files = parts.store.batches, parts.files
        self._file_limits = parts.settings.file_limits
        self._wake, self._limit = parts.wake_batches, parts.settings.batches_per_tenant

    async def CreateBatch(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        caller = current_caller()
        new = new_batch(request.data, caller, idempotency_key=header(context, "idempotency-key"))
        file = await self._files.get(caller.tenant, new.input_file_id)
        if file.purpose != BATCH:
            fact = f"file {file.file_id} has the purpose {file.purpose}; it must be {BATCH}"
            raise InvalidRequest(fact, field="input_file_id")
        # Why here: a batch without room for an answer would fail with its first.
        await self._files.check_room(caller.tenant, self._file_limits)
        batch = await self._batches.create(new, by=actor(caller), limit=self._limit)
        self._wake()
        yield await send_json(context, batch_object(batch))

    async def ListBatches(
        self, request: pb.ListBatchesRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        found, more = await self._batches.list(
            current_caller().tenant, after=request.after, limit=listed(request)
        )
        yield await send_json(context, batch_list(found, has_more=more))

    async def GetBatch(
        self, request: pb.GetBatchRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        batch = await self._batches.get(current_caller().tenant, request.batch_id)
        yield await send_json(context, batch_object(batch))

    async def CancelBatch(
        self, request: pb.CancelBatchRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        caller = current_caller()
        batch = await self._batches.cancel(caller.tenant, request.batch_id, by=actor(caller))
        self._wake()
        yield await send_json(context, batch_object(batch))
