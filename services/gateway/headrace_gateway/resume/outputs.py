"""The output of requests that are open at other gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import grpc

from headrace.credentials.tls_files import TlsFiles
from headrace.errors import GatewayUnreachable
from headrace.internal.v1.attach_pb2 import AttachedQueue, AttachRequest, AttachResponse
from headrace.internal.v1.attach_pb2_grpc import AttachServiceStub
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.request_keys import public_id
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.status import from_status
from headrace.rpc.tls import mesh_security
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Queued,
)
from headrace_gateway.stream.stored_output import tokens_of

REACH_S = 1.0
"""Longest wait for the first message of another gateway."""

Call = grpc.aio.UnaryStreamCall[AttachRequest, AttachResponse]


class RemoteOutput(Generation):
    """The output of a request that is open at another gateway, which also settles it."""

    def __init__(self, call: Call, record: RequestRecord, channel: AsyncExitStack) -> None:
        super().__init__(record)
        self._call, self._channel = call, channel

    @classmethod
    async def reach(
        cls, address: str, request_id: str, *, secret: DeliverySecret, tls: TlsFiles | None = None
    ) -> RemoteOutput:
        """
        Raises:
            GatewayUnreachable: no gateway answers at this address, or the request is not open
                there: it has just ended, or another gateway has been started at the address.
        """
        async with AsyncExitStack() as stack:
            security = mesh_security(tls, "gateway")
            opened = aio_channel(address, pings=MESH_PINGS, security=security)
            channel = await stack.enter_async_context(opened)
            request = AttachRequest(request_id=request_id)
            call = AttachServiceStub(channel).Attach(request, metadata=secret.metadata())
            try:
                async with asyncio.timeout(REACH_S):
                    first = await call.read()
            except TimeoutError:
                fact = f"{address} did not answer in {REACH_S:g} s"
                raise _unreachable(request_id, fact) from None
            except grpc.aio.AioRpcError as error:
                raise _unreachable(request_id, f"{address}: {error.details()}") from None
            assert isinstance(first, AttachResponse)
            return cls(call, first.record, stack.pop_all())

    async def events(self) -> AsyncIterator[list[Event]]:
        try:
            while isinstance(message := await self._call.read(), AttachResponse):
                yield list(_events(message))
        except grpc.aio.AioRpcError as error:
            shown = public_id(self.record.request_id)
            fact = f"the gateway that has request {shown} broke off: {error.details()}"
            yield [Failed(GatewayUnreachable(fact, retry_after_s=DEFAULT_RETRY_S))]

    async def settle(self, outcome: RequestOutcome) -> None:
        await self.abandon()

    async def abandon(self) -> None:
        self._call.cancel()
        await self._channel.aclose()


def _unreachable(request_id: str, fact: str) -> GatewayUnreachable:
    what = f"the gateway that has request {public_id(request_id)} cannot be reached ({fact})"
    return GatewayUnreachable(what, retry_after_s=DEFAULT_RETRY_S)


def _events(message: AttachResponse) -> Iterator[Event]:
    for piece in message.tokens:
        cached = piece.cached_prompt_tokens if piece.HasField("cached_prompt_tokens") else None
        yield tokens_of(piece, piece.choice, piece.first_index, cached)
    for ending in message.endings:
        yield ChoiceEnded(ending.choice, ending.finish_reason)
    if message.HasField("error"):
        yield Failed(from_status(message.error))
    if message.HasField("queue"):
        yield _queued(message.queue)


def _queued(queue: AttachedQueue) -> Queued:
    return Queued(
        ahead=queue.ahead if queue.HasField("ahead") else None,
        wait_s=queue.wait.ToNanoseconds() / 1e9 if queue.HasField("wait") else None,
        waits_for_quota=queue.waits_for_quota,
    )
