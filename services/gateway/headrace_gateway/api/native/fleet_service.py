"""FleetService and RequestService: workers, lanes and requests of the mesh."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.internal.v1.reports_pb2 import LocateRequest
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
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.native.convert import generate_request, key_of_request
from headrace_gateway.api.native.generation_service import write_answer
from headrace_gateway.api.native.grpc_errors import abort_on_error, counted
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.output.answering import Answer
from headrace_gateway.resume.waiting import MAX_WAIT_S


class FleetService(ApiServicer, FleetServiceServicer):
    async def ListWorkers(
        self, request: ListWorkersRequest, context: Context
    ) -> ListWorkersResponse:
        return ListWorkersResponse(workers=self.services.fleet.workers())

    async def ListLanes(self, request: ListLanesRequest, context: Context) -> ListLanesResponse:
        return ListLanesResponse(lanes=self.services.fleet.lanes())


class RequestService(ApiServicer, RequestServiceServicer):
    @counted
    async def CreateRequest(self, request: GenerateRequest, call: Call) -> Request:
        request.detached = True
        return await self.services.opener.begin(generate_request(request, call), call)

    async def GetRequest(self, request: GetRequestRequest, context: Context) -> Request:
        return await abort_on_error(context, self._get(request, call_of(context)))

    async def CancelRequest(self, request: CancelRequestRequest, context: Context) -> Request:
        return await abort_on_error(context, self._cancel(request, call_of(context)))

    async def AttachRequest(self, request: AttachRequestRequest, context: Context) -> None:  # type: ignore[override]
        with CallCounter("native") as counter:
            answer = await abort_on_error(context, self._attach(request, call_of(context)), counter)
            counter.model = self.services.submitter.known(answer.request.model)
            await write_answer(answer, context, counter)

    async def _attach(self, request: AttachRequestRequest, call: Call) -> Answer:
        key = key_of_request(request.request_id, call)
        return await self.services.opener.resume(key, request.after)

    async def _get(self, request: GetRequestRequest, call: Call) -> Request:
        key = key_of_request(request.request_id, call)
        wait_s, requests = _wait_in(request), self.services.requests
        return (await (requests.wait(key, wait_s) if wait_s else requests.locate(key))).status()

    async def _cancel(self, request: CancelRequestRequest, call: Call) -> Request:
        key = key_of_request(request.request_id, call)
        return (await self.services.requests.locate(key, LocateRequest.VERB_CANCEL)).status()


def _wait_in(request: GetRequestRequest) -> float:
    """Return how long a call waits for the end of its request, in seconds.

    Raises:
        InvalidRequest: it is out of its range.
    """
    wait_s = request.wait.seconds + request.wait.nanos / 1e9
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise InvalidRequest(
            f"wait is {wait_s:g} s; it must be 0 s to {MAX_WAIT_S:g} s: send the call again to wait"
            " longer",
            field="wait",
        )
    return wait_s
