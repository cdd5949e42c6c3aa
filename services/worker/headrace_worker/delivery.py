"""Tokens out: one gRPC stream per gateway, one message per step.

What a link has to say is always derivable from the sequences held for its
gateway, so nothing is queued while a stream is down: when it is up again,
everything unacknowledged is said from its beginning and the gateway drops the
repeats.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Protocol

import grpc

from headrace.internal.v1.delivery_pb2 import (
    DeliverRequest,
    DeliverResponse,
    Ending,
)
from headrace.internal.v1.delivery_pb2_grpc import DeliveryServiceStub
from headrace.rpc.server import KEEPALIVE_OPTIONS
from headrace_worker.assignments import Held

log = logging.getLogger(__name__)

RECONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits between attempts to reach a gateway; the last one repeats."""
CONNECT_S = 2.0

Stream = grpc.aio.StreamStreamCall[DeliverRequest, DeliverResponse]


class Owner(Protocol):
    """Whose sequences a link speaks of."""

    def of_gateway(self, gateway_id: str) -> list[Held]: ...

    def acknowledged(self, held: Held) -> None:
        """The gateway has taken its end."""
        ...

    def cancelled(self, held: Held) -> None:
        """The gateway wants no more of it."""
        ...

    def unreachable(self, gateway_id: str) -> None:
        """The grace time has passed without a stream."""
        ...


class GatewayLink:
    """The stream to one gateway. `run` keeps it up for as long as there is anything held."""

    def __init__(
        self, gateway_id: str, address: str, worker_id: str, owner: Owner, *, grace_s: float
    ) -> None:
        self.gateway_id = gateway_id
        self._address, self._worker_id, self._owner = address, worker_id, owner
        self._grace_s = grace_s
        self._said: dict[int, Held] = {}
        """By slot of the present stream."""
        self._slots: dict[int, int] = {}
        """sequence_id to slot."""
        self._free_slots: list[int] = []
        self._next_slot = 0
        self._pending = DeliverRequest()
        self._wake = asyncio.Event()
        self._up = False

    # What the worker says

    def open(self, held: Held) -> None:
        """A sequence begins; what it has beyond `first_index` is said with it."""
        if not self._up:
            return
        slot = self._take_slot()
        self._said[slot] = held
        self._slots[held.sequence_id] = slot
        self._pending.openings.add(
            slot=slot, request_id=held.request_id, choice=held.choice, attempt=held.attempt
        )
        fresh = held.output_ids[held.first_index :]
        self._pending.slots.extend([slot] * len(fresh))
        self._pending.indices.extend(range(held.first_index, len(held.output_ids)))
        self._pending.token_ids.extend(fresh)
        if held.finish_reason is not None:
            self._add_ending(slot, held)
        self._wake.set()

    def tokens(self, news: Iterable[tuple[Held, int]]) -> None:
        """One new token each: the last of the sequence's `output_ids`."""
        pending, slots = self._pending, self._slots
        for held, token_id in news:
            slot = slots.get(held.sequence_id)
            if slot is not None:
                pending.slots.append(slot)
                pending.indices.append(len(held.output_ids) - 1)
                pending.token_ids.append(token_id)
        self._wake.set()

    def end(self, held: Held) -> None:
        """Its `finish_reason` is set."""
        slot = self._slots.get(held.sequence_id)
        if slot is not None:
            self._add_ending(slot, held)
            self._wake.set()

    def drop(self, held: Held) -> None:
        """Say nothing more of a sequence that was let go, parked or replaced.

        Its slot is not given out again on this stream: what was said of it may be on its way.
        """
        slot = self._slots.pop(held.sequence_id, None)
        if slot is not None:
            del self._said[slot]

    def _add_ending(self, slot: int, held: Held) -> None:
        assert held.finish_reason is not None
        ending = Ending(
            slot=slot,
            finish_reason=held.finish_reason,
            output_tokens=len(held.output_ids),
            error=held.error,
        )
        self._pending.endings.append(ending)

    def _take_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        self._next_slot += 1
        return self._next_slot - 1

    # The stream

    async def run(self) -> None:
        """Keep a stream up until cancelled; tell the owner when the gateway stays away."""
        loop = asyncio.get_running_loop()
        down_since_s, failures = loop.time(), 0
        while True:
            try:
                async with grpc.aio.insecure_channel(
                    self._address, options=KEEPALIVE_OPTIONS
                ) as channel:
                    await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
                    failures = 0
                    await self._converse(DeliveryServiceStub(channel).Deliver())
            except TimeoutError:
                log.warning("delivery.unreachable", extra={"gateway": self.gateway_id})
            if self._up:
                self._up, down_since_s = False, loop.time()
            if loop.time() - down_since_s >= self._grace_s:
                self._owner.unreachable(self.gateway_id)
                down_since_s = loop.time()
            await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
            failures += 1

    async def _converse(self, stream: Stream) -> None:
        self._start_over()
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(stream))
            try:
                await self._read(stream)
            finally:
                writer.cancel()
                stream.cancel()

    def _start_over(self) -> None:
        self._said.clear()
        self._slots.clear()
        self._free_slots.clear()
        self._next_slot = 0
        self._pending = DeliverRequest(worker_id=self._worker_id)
        self._up = True
        for held in self._owner.of_gateway(self.gateway_id):
            self.open(held)
        self._wake.set()

    async def _write(self, stream: Stream) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            message, self._pending = self._pending, DeliverRequest()
            try:
                await stream.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader hears of it as well, and ends the stream

    async def _read(self, stream: AsyncIterable[DeliverResponse]) -> None:
        try:
            async for response in stream:
                self._settle(response.acknowledged_slots, self._owner.acknowledged)
                self._settle(response.cancelled_slots, self._owner.cancelled)
        except grpc.aio.AioRpcError as error:
            log.warning(
                "delivery.broken", extra={"gateway": self.gateway_id, "error": error.code()}
            )

    def _settle(self, slots: Iterable[int], tell: Callable[[Held], None]) -> None:
        for slot in slots:
            held = self._said.pop(slot, None)
            if held is not None:
                self._slots.pop(held.sequence_id, None)
                self._free_slots.append(slot)
                tell(held)
