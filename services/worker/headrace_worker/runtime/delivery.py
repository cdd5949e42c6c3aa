"""Sends tokens to gateways: one gRPC stream for each, one message per engine step.

What a stream must carry follows from the sequences held for its gateway, so nothing is queued
while it is down: when it is up again, everything unacknowledged is sent from its beginning, and
the gateway drops the repeats.

Messages name a sequence by a small number, `slot` on the wire, which is not its slot in the engine.
An opening binds the number; it is bound again only after the gateway has answered for it and all
that names it is written:

    open(A)        openings: slot 0 = request a, choice 0, attempt 1
    open(B)        openings: slot 1 = request b, choice 0, attempt 4
    tokens(A, B)   slots [0, 1], indices [0, 0], token_ids [17, 99]
    end(A)         endings: slot 0, finish reason stop
    drop(B)        B is parked: nothing more is sent of it, but slot 1 stays bound
    gateway        acknowledged_slots [0], cancelled_slots [1]: both are answered
    next write     a message that may still name them goes out; then slots 0 and 1 are free
    open(C)        openings: slot 1 = request c
    stream breaks  all is forgotten; on the next stream C is opened as slot 0 and sent from its
                   `first_index`, also the tokens that the gateway has
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Protocol

import grpc

from headrace.credentials.tls_files import TlsFiles
from headrace.internal.v1.delivery_pb2 import DeliverRequest, DeliverResponse, Ending
from headrace.internal.v1.delivery_pb2_grpc import DeliveryServiceStub
from headrace.logprobs import Logprobs
from headrace.rpc.channels import MESH_PINGS, aio_channel
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.tls import mesh_security
from headrace_worker.runtime.assignments import HeldSequence
from headrace_worker.runtime.logprob_columns import add_prompt, add_rows, entries

log = logging.getLogger(__name__)

RECONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits between attempts to reach a gateway; the last one repeats."""
CONNECT_S = 1.0
MIN_STREAM_S = 1.0
"""A stream that breaks sooner, without a message from the gateway, does not count as reaching it:
what listens at its address may not be a gateway."""
MESSAGE_ENTRIES = 100_000
"""Tokens and log probabilities of one message, after which another is begun: far below a message's
limit in bytes."""
MESSAGE_VECTOR_BYTES = 1 << 20
"""The same for vectors."""

Stream = grpc.aio.StreamStreamCall[DeliverRequest, DeliverResponse]


class SequenceOwner(Protocol):
    """The holder of the sequences that a link sends."""

    def of_gateway(self, gateway_id: str) -> list[HeldSequence]: ...

    def acknowledged(self, held: HeldSequence) -> None:
        """Handle that the gateway has accepted its end."""
        ...

    def cancelled(self, held: HeldSequence) -> None:
        """Handle that the gateway has cancelled it."""
        ...

    def unreachable(self, gateway_id: str) -> None:
        """Handle that the grace time has passed without a stream; the link ends."""
        ...


class GatewayLink:
    """The stream to one gateway; `run` keeps it up."""

    def __init__(
        self,
        gateway_id: str,
        address: str,
        worker_id: str,
        owner: SequenceOwner,
        *,
        grace_s: float,
        secret: DeliverySecret,
        tls: TlsFiles | None = None,
    ) -> None:
        self.gateway_id = gateway_id
        self._address, self._worker_id, self._owner = address, worker_id, owner
        self._grace_s, self._secret, self._tls = grace_s, secret, tls
        self._bound: dict[int, HeldSequence | None] = {}
        """Sequence by bound number of this stream; None if it was dropped and the gateway's answer
        is awaited."""
        self._numbers: dict[int, int] = {}
        """Number on the wire by sequence id."""
        self._free_numbers: list[int] = []
        self._answered: list[int] = []
        """Slots that are free once `_pending`, which may still name them, is written."""
        self._next_number = 0
        self._full: list[DeliverRequest] = []
        """Messages to write before `_pending`."""
        self._pending = DeliverRequest()
        self._vector_bytes = 0
        """Bytes of vectors in `_pending`."""
        self._wake = asyncio.Event()
        self._up = False

    # What the worker sends

    def open(self, held: HeldSequence) -> None:
        """Open a sequence and send its output from `first_index` on."""
        if not self._up:
            return
        self._schedule_write()
        number = self._take_number()
        self._bound[number] = held
        self._numbers[held.sequence_id] = number
        self._pending.openings.add(
            slot=number, request_id=held.request_id, choice=held.choice, attempt=held.attempt
        )
        if held.cached_prompt is not None:
            self._pending.cached_prompts.add(slot=number, tokens=held.cached_prompt)
        if held.prompt_logprobs:
            self._resend_prompt(number, held.prompt_logprobs)
        self._resend_output(number, held)
        if held.finish_reason is not None:
            self._add_ending(number, held)

    def _resend_prompt(self, number: int, logprobs: Logprobs) -> None:
        portion = _portion(logprobs)
        for first in range(0, len(logprobs), portion):
            self._schedule_write()
            add_prompt(self._pending, number, first, logprobs.cut(first, first + portion))

    def _resend_output(self, number: int, held: HeldSequence) -> None:
        logprobs = held.logprobs or Logprobs()
        portion = _portion(logprobs)
        for first in range(held.first_index, len(held.output_ids), portion):
            self._schedule_write()
            ids, row = held.output_ids[first : first + portion], len(self._pending.slots)
            self._pending.slots.extend([number] * len(ids))
            self._pending.indices.extend(range(first, first + len(ids)))
            self._pending.token_ids.extend(ids)
            begin = first - held.first_index
            add_rows(self._pending, row, logprobs.cut(begin, begin + len(ids)))

    def prompt(self, held: HeldSequence, run: Logprobs) -> None:
        """Send log probabilities of the prompt that follow on `held.prompt_logprobs`."""
        number = self._numbers.get(held.sequence_id)
        if number is not None and held.prompt_logprobs is not None:
            self._schedule_write()
            add_prompt(self._pending, number, len(held.prompt_logprobs), run)

    def cached(self, held: HeldSequence, tokens: int) -> None:
        """Send how much of its prompt was in the cache; it has a first token now."""
        held.cached_prompt = tokens
        number = self._numbers.get(held.sequence_id)
        if number is not None:
            self._schedule_write()
            self._pending.cached_prompts.add(slot=number, tokens=tokens)

    def tokens(self, news: Iterable[tuple[HeldSequence, int]]) -> None:
        """Send one new token each, the last of `output_ids`, and its log probabilities."""
        if not self._up:
            return
        number_of = self._numbers
        numbers: list[int] = []
        indices: list[int] = []
        token_ids: list[int] = []
        with_logprobs: list[tuple[int, Logprobs]] = []
        for held, token_id in news:
            if held.logprobs is not None:
                with_logprobs.append((len(numbers), held.logprobs))
            # Why []: every running sequence is opened when the stream is, or when it begins.
            numbers.append(number_of[held.sequence_id])
            indices.append(len(held.output_ids) - 1)
            token_ids.append(token_id)
        self._schedule_write()
        for row, run in with_logprobs:
            add_rows(self._pending, len(self._pending.slots) + row, run.cut(len(run) - 1))
        self._pending.slots.extend(numbers)
        self._pending.indices.extend(indices)
        self._pending.token_ids.extend(token_ids)

    def end(self, held: HeldSequence) -> None:
        """Send the end of a sequence; its `finish_reason` is set."""
        number = self._numbers.get(held.sequence_id)
        if number is not None:
            self._schedule_write()
            self._add_ending(number, held)

    def drop(self, held: HeldSequence) -> None:
        """Send nothing more of a sequence that was cancelled, parked or replaced.

        Its number stays bound until the gateway answers for it, as it does for every opening.
        """
        number = self._numbers.pop(held.sequence_id, None)
        if number is not None:
            self._bound[number] = None

    def _add_ending(self, number: int, held: HeldSequence) -> None:
        assert held.finish_reason is not None
        ending = Ending(
            slot=number,
            finish_reason=held.finish_reason,
            output_tokens=len(held.output_ids),
            error=held.error,
            vector=held.vector,
        )
        self._pending.endings.append(ending)
        self._vector_bytes += len(held.vector)

    def _schedule_write(self) -> None:
        """Have `_pending` written soon; begin another message if it is full."""
        self._wake.set()
        is_full = entries(self._pending) >= MESSAGE_ENTRIES
        if is_full or self._vector_bytes >= MESSAGE_VECTOR_BYTES:
            self._full.append(self._cut_message())

    def _cut_message(self) -> DeliverRequest:
        """Begin another message; return the one that was pending."""
        message, self._pending, self._vector_bytes = self._pending, DeliverRequest(), 0
        return message

    def _take_number(self) -> int:
        if self._free_numbers:
            return self._free_numbers.pop()
        self._next_number += 1
        return self._next_number - 1

    def check_integrity(self) -> None:
        """Raise AssertionError unless every number is either bound or free."""
        bound = {number for number, held in self._bound.items() if held is not None}
        assert bound == set(self._numbers.values())
        idle = [*self._free_numbers, *self._answered]
        assert sorted([*self._bound, *idle]) == list(range(self._next_number))

    # The stream

    async def run(self) -> None:
        """Keep a stream up until cancelled, or until the gateway is unreachable for too long."""
        loop = asyncio.get_running_loop()
        seen_s, failures = loop.time(), 0
        while True:
            if await self._try_stream():
                seen_s, failures = loop.time(), 0
            if loop.time() - seen_s >= self._grace_s:
                self._owner.unreachable(self.gateway_id)
                return
            await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
            failures += 1

    async def _try_stream(self) -> bool:
        """Run a stream until it breaks; return whether the gateway was reached."""
        loop = asyncio.get_running_loop()
        try:
            security = mesh_security(self._tls, "gateway")
            async with aio_channel(self._address, pings=MESH_PINGS, security=security) as channel:
                async with asyncio.timeout(CONNECT_S):
                    await channel.channel_ready()
                began_s = loop.time()
                stub, metadata = DeliveryServiceStub(channel), self._secret.metadata()
                answered = await self._run_stream(stub.Deliver(metadata=metadata))
                return answered or loop.time() - began_s >= MIN_STREAM_S
        except TimeoutError:
            log.warning("delivery.unreachable", extra={"gateway": self.gateway_id})
            return False

    async def _run_stream(self, stream: Stream) -> bool:
        """Run a stream until it breaks; return whether the gateway ever answered on it."""
        self._resend_all()
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(stream))
            try:
                return await self._read(stream)
            finally:
                self._reset()
                writer.cancel()
                stream.cancel()

    def _resend_all(self) -> None:
        self._pending = DeliverRequest(worker_id=self._worker_id)
        self._up = True
        for held in self._owner.of_gateway(self.gateway_id):
            self.open(held)
        self._wake.set()

    def _reset(self) -> None:
        """Forget all that belongs to the broken stream."""
        self._up = False
        self._bound.clear()
        self._numbers.clear()
        self._free_numbers.clear()
        self._answered.clear()
        self._full.clear()
        self._next_number = 0
        self._cut_message()

    async def _write(self, stream: Stream) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                for message in self._take_messages():
                    await stream.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader fails as well, and ends the stream

    def _take_messages(self) -> list[DeliverRequest]:
        messages = [*self._full, self._cut_message()]
        self._full.clear()
        # Why only now: a message's openings come before its tokens, so a number that is bound
        # anew in it must not also carry tokens of the sequence that had it before.
        self._free_numbers += self._answered
        self._answered.clear()
        return messages

    async def _read(self, stream: AsyncIterable[DeliverResponse]) -> bool:
        answered = False
        try:
            async for response in stream:
                answered = True
                self._settle(response.acknowledged_slots, self._owner.acknowledged)
                self._settle(response.cancelled_slots, self._owner.cancelled)
        except grpc.aio.AioRpcError as error:
            facts = {"gateway": self.gateway_id, "error": error.code(), "details": error.details()}
            log.warning("delivery.broken", extra=facts)
        return answered

    def _settle(self, numbers: Iterable[int], notify: Callable[[HeldSequence], None]) -> None:
        for number in numbers:
            if number not in self._bound:
                continue
            held = self._bound.pop(number)
            self._answered.append(number)
            if held is not None:
                self._numbers.pop(held.sequence_id, None)
                notify(held)


def _portion(logprobs: Logprobs) -> int:
    """Return how many tokens of a sequence go into one message, at most."""
    return max(1, MESSAGE_ENTRIES // (logprobs.width + 1))
