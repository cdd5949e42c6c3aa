"""The output of a request that is open at another gateway, read over the internal AttachService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import grpc

from headrace.errors import GatewayUnreachable, RequestNotFound
from headrace.internal.v1.attach_pb2 import AttachRequest, AttachResponse
from headrace.internal.v1.attach_pb2_grpc import AttachServiceStub
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.base.request_keys import public_id
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens
from headrace_gateway.request.logprob_columns import read_run

REACH_S = 1.0
"""Longest wait for another gateway's first word."""


class Unreachable(Exception):
    """No gateway answers at this address."""


Call = grpc.aio.UnaryStreamCall[AttachRequest, AttachResponse]


class Remote(Generation):
    """The `Generation` of a reader whose request is open at another gateway, which settles it."""

    failed = False

    def __init__(self, call: Call, record: RequestRecord, channel: AsyncExitStack) -> None:
        super().__init__(record.request_id, record.arrival.ToNanoseconds() / 1e9)
        self.record = record
        self._call, self._channel = call, channel

    @classmethod
    async def reach(cls, address: str, request_id: str) -> Remote:
        """
        Raises:
            RequestNotFound: it is not open there.
            Unreachable: no gateway answers there.
        """
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(aio_channel(address, pings=MESH_PINGS))
            call = AttachServiceStub(channel).Attach(AttachRequest(request_id=request_id))
            try:
                async with asyncio.timeout(REACH_S):
                    first = await call.read()
            except TimeoutError:
                raise Unreachable(f"{address} did not answer in {REACH_S:g} s") from None
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise RequestNotFound(str(error.details()), field="request_id") from None
                raise Unreachable(f"{address}: {error.details()}") from None
            assert isinstance(first, AttachResponse)
            return cls(call, first.record, stack.pop_all())

    async def open(self) -> Generation:
        return self

    async def events(self) -> AsyncIterator[list[Event]]:
        try:
            while isinstance(message := await self._call.read(), AttachResponse):
                yield list(_events(message))
        except grpc.aio.AioRpcError as error:
            shown = public_id(self.request_id)
            fact = f"the gateway that has request {shown} broke off: {error.details()}"
            yield [Failed(GatewayUnreachable(fact, retry_after_s=DEFAULT_RETRY_S))]

    async def settle(self, outcome: RequestOutcome) -> None:
        await self.abandon()

    async def abandon(self) -> None:
        self._call.cancel()
        await self._channel.aclose()


def _events(message: AttachResponse) -> Iterator[Event]:
    for piece in message.tokens:
        yield Tokens(
            piece.choice,
            piece.first_index,
            list(piece.token_ids),
            read_run(piece.logprobs) if piece.HasField("logprobs") else None,
            read_run(piece.prompt_logprobs) if piece.HasField("prompt_logprobs") else None,
            piece.cached_prompt_tokens if piece.HasField("cached_prompt_tokens") else None,
        )
    for ending in message.endings:
        yield ChoiceEnded(ending.choice, ending.finish_reason)
    if message.HasField("error"):
        yield Failed(from_status(message.error))
