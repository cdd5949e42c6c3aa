"""Background requests on behalf of people: begun, waited for, cancelled."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc_status import rpc_status

from headrace.auth.check.forwarded import caller_metadata
from headrace.errors import GatewayUnreachable
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.status import from_rpc_error
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.requests_pb2 import CancelRequestRequest, GetRequestRequest, Request
from headrace.v1.requests_pb2_grpc import RequestServiceStub
from headrace_web.mesh.gateways import Gateways

if TYPE_CHECKING:
    from headrace.v1.requests_pb2_grpc import RequestServiceAsyncStub

T = TypeVar("T")

WAIT_S = 30
"""For which one call waits for the end of a request."""
_ANSWER_S = 10.0
"""Longest wait for a gateway's answer beyond that."""
_RETRY_S = 1.0


class MeshRequests:
    """Errors are those of `headrace.errors`, as every caller of the mesh gets them."""

    def __init__(self, gateways: Gateways, secret: DeliverySecret) -> None:
        self._gateways, self._secret = gateways, secret

    async def begin(self, request: GenerateRequest, caller: RowCaller) -> Request:
        """Store a request, which runs without a reader. The same one again changes nothing."""
        return await _answered(
            self._service().CreateRequest(
                request, metadata=self._metadata(caller), timeout=_ANSWER_S
            )
        )

    async def wait(self, request_id: str, caller: RowCaller) -> Request:
        """Return the state of a request, once it has ended or `WAIT_S` have passed."""
        asked = GetRequestRequest(request_id=request_id)
        asked.wait.FromSeconds(WAIT_S)
        return await _answered(
            self._service().GetRequest(
                asked, metadata=self._metadata(caller), timeout=WAIT_S + _ANSWER_S
            )
        )

    async def cancel(self, request_id: str, caller: RowCaller) -> Request:
        return await _answered(
            self._service().CancelRequest(
                CancelRequestRequest(request_id=request_id),
                metadata=self._metadata(caller),
                timeout=_ANSWER_S,
            )
        )

    def _service(self) -> RequestServiceAsyncStub:
        stub: RequestServiceAsyncStub = RequestServiceStub(self._gateways.channel())
        return stub

    def _metadata(self, caller: RowCaller) -> tuple[tuple[str, str | bytes], ...]:
        return (*self._secret.metadata(), caller_metadata(caller))


async def _answered(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if rpc_status.from_call(error) is None:  # type: ignore[arg-type]  # it has what that reads
            # gRPC's own: the mesh has not decided anything.
            why = error.details() or error.code().name
            raise GatewayUnreachable(why, retry_after_s=_RETRY_S) from None
        raise from_rpc_error(error) from None
