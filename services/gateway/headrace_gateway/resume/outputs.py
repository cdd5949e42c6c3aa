"""Output that is not produced for a reader here: stored results, and requests of other gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import grpc

from headrace.credentials.tls_files import TlsFiles
from headrace.errors import GatewayUnreachable, RequestNotFound
from headrace.internal.v1.attach_pb2 import AttachedTokens, AttachRequest, AttachResponse
from headrace.internal.v1.attach_pb2_grpc import AttachServiceStub
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.request_keys import public_id
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.status import from_status
from headrace.rpc.tls import mesh_security
from headrace.v1.common_pb2 import Choice, RequestOutcome
from headrace_gateway.output.assembler import UNFINISHED
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens
from headrace_gateway.request.logprob_columns import read_run
from headrace_gateway.stream.stored_record import wants_logprobs

REACH_S = 1.0
"""Longest wait for the first message of another gateway."""

Call = grpc.aio.UnaryStreamCall[AttachRequest, AttachResponse]


class StoredOutput(Generation):
    """The output of a stored result. It holds nothing, so it need not be ended."""

    def __init__(self, result: ResultRecord) -> None:
        """
        Raises:
            RequestNotFound: the request has logprobs, which were too large to be stored.
        """
        super().__init__(result.request)
        self._outcome = result.outcome
        lacks_logprobs = any(
            choice.token_ids and not _has_logprobs(choice) for choice in result.outcome.choices
        )
        if lacks_logprobs and wants_logprobs(self.record):
            raise RequestNotFound(
                f"request {public_id(self.record.request_id)} has ended; its result was too large"
                " to be stored with log probabilities",
                field="request_id",
            )

    async def events(self) -> AsyncIterator[list[Event]]:
        outcome, events = self._outcome, list[Event]()
        known = outcome.usage.HasField("cached_prompt_tokens")
        cached = outcome.usage.cached_prompt_tokens if known else None
        for choice in outcome.choices:
            if choice.token_ids:
                events.append(_tokens(choice, choice.index, 0, cached))
            if choice.finish_reason != UNFINISHED:
                events.append(ChoiceEnded(choice.index, choice.finish_reason))
        if outcome.HasField("error"):
            events.append(Failed(from_status(outcome.error)))
        yield events


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


def _has_logprobs(choice: Choice) -> bool:
    return choice.HasField("logprobs") or choice.HasField("prompt_logprobs")


def _events(message: AttachResponse) -> Iterator[Event]:
    for piece in message.tokens:
        cached = piece.cached_prompt_tokens if piece.HasField("cached_prompt_tokens") else None
        yield _tokens(piece, piece.choice, piece.first_index, cached)
    for ending in message.endings:
        yield ChoiceEnded(ending.choice, ending.finish_reason)
    if message.HasField("error"):
        yield Failed(from_status(message.error))


def _tokens(
    message: Choice | AttachedTokens, choice: int, first_index: int, cached: int | None
) -> Tokens:
    return Tokens(
        choice,
        first_index,
        list(message.token_ids),
        read_run(message.logprobs) if message.HasField("logprobs") else None,
        read_run(message.prompt_logprobs) if message.HasField("prompt_logprobs") else None,
        cached,
    )
