"""FleetService and RequestService: what the mesh side knows, handed on."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.v1.fleet_pb2 import (
    ListLanesRequest,
    ListLanesResponse,
    ListWorkersRequest,
    ListWorkersResponse,
)
from headrace.v1.fleet_pb2_grpc import FleetServiceServicer
from headrace.v1.requests_pb2 import CancelRequestRequest, GetRequestRequest, Request
from headrace.v1.requests_pb2_grpc import RequestServiceServicer
from headrace_gateway.calls import Context
from headrace_gateway.native.ports import Fleet, Requests
from headrace_gateway.native.statuses import told_by_status
from headrace_gateway.quoting import quoted
from headrace_gateway.validation import NAME


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
    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def GetRequest(self, request: GetRequestRequest, context: Context) -> Request:
        return await told_by_status(context, self._get(request.request_id))

    async def CancelRequest(self, request: CancelRequestRequest, context: Context) -> Request:
        return await told_by_status(context, self._cancel(request.request_id))

    async def _get(self, request_id: str) -> Request:
        return await self._requests.get(_checked(request_id))

    async def _cancel(self, request_id: str) -> Request:
        return await self._requests.cancel(_checked(request_id))


def _checked(request_id: str) -> str:
    """Why: ids become subjects of the bus, where dots and stars mean something."""
    if not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"request_id {quoted(request_id)} is not 1 to 64 of A-Z a-z 0-9 _ -",
            field="request_id",
        )
    return request_id
