"""FleetService and RequestService: what the mesh side knows, handed on."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.v1.fleet_pb2 import (
    ListLanesRequest,
    ListLanesResponse,
    ListWorkersRequest,
    ListWorkersResponse,
)
from headrace.v1.fleet_pb2_grpc import FleetServiceServicer
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.requests_pb2 import (
    AttachRequestRequest,
    CancelRequestRequest,
    GetRequestRequest,
    Request,
)
from headrace.v1.requests_pb2_grpc import RequestServiceServicer
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.native.convert import generate_request, with_request_id
from headrace_gateway.api.native.generation_service import write_answer
from headrace_gateway.api.native.grpc_errors import abort_on_error
from headrace_gateway.api.native.request_ids import validate_request_id
from headrace_gateway.base.calls import Context, call_of
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.resume.background_calls import BackgroundRequests
from headrace_gateway.resume.ports import Fleet, Requests


class FleetService(FleetServiceServicer):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def ListWorkers(
        self, request: ListWorkersRequest, context: Context
    ) -> ListWorkersResponse:
        return ListWorkersResponse(workers=self._fleet.workers())

    async def ListLanes(self, request: ListLanesRequest, context: Context) -> ListLanesResponse:
        return ListLanesResponse(lanes=self._fleet.lanes())


class RequestService(RequestServiceServicer):
    def __init__(
        self, requests: Requests, resumer: AnswerResumer, background: BackgroundRequests
    ) -> None:
        self._requests, self._resumer = requests, resumer
        self._background = background

    async def CreateRequest(self, request: GenerateRequest, context: Context) -> Request:
        with CallCounter("native", self._background.known(request.model)) as counter:
            created = await abort_on_error(context, self._create(request, context), counter)
            counter.finish()
            return created

    async def GetRequest(self, request: GetRequestRequest, context: Context) -> Request:
        return await abort_on_error(context, self._get(request.request_id))

    async def CancelRequest(self, request: CancelRequestRequest, context: Context) -> Request:
        return await abort_on_error(context, self._cancel(request.request_id))

    async def AttachRequest(self, request: AttachRequestRequest, context: Context) -> None:  # type: ignore[override]
        with CallCounter("native") as counter:
            answer = await abort_on_error(context, self._attach(request), counter)
            counter.model = self._background.known(answer.request.model)
            await write_answer(answer, context, counter)

    async def _attach(self, request: AttachRequestRequest) -> Answer:
        return await self._resumer.resume(validate_request_id(request.request_id), request.after)

    async def _create(self, request: GenerateRequest, context: Context) -> Request:
        call = call_of(context)
        detached = GenerateRequest()
        detached.CopyFrom(request)
        detached.detached = True
        wanted = generate_request(detached, with_request_id(detached, call))
        return await self._background.begin(wanted, call, repeatable=bool(request.request_id))

    async def _get(self, request_id: str) -> Request:
        return await self._requests.get(validate_request_id(request_id))

    async def _cancel(self, request_id: str) -> Request:
        return await self._requests.cancel(validate_request_id(request_id))
