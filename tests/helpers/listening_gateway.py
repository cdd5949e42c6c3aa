"""A gateway's end of delivery, and a judge of what workers say on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from headrace.internal.v1 import delivery_pb2_grpc
from headrace.internal.v1.delivery_pb2 import (
    DeliverRequest,
    DeliverResponse,
    Ending,
    Opening,
    PromptLogprobs,
)
from headrace.logprobs import Logprobs
from headrace.rpc.server import bind, make_server
from headrace_gateway.request.logprob_columns import by_row, read_run
from helpers.eventually import eventually


@dataclass
class ChoiceDelta:
    """What a gateway heard of one choice of one attempt, over all streams."""

    tokens: dict[int, int] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    openings: int = 0
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By output index."""
    prompt_logprobs: Logprobs = field(default_factory=Logprobs)
    """As the latest stream said it."""
    cached_prompts: list[int] = field(default_factory=list)
    """As each stream said it."""

    @property
    def first_index(self) -> int:
        return min(self.tokens)

    @property
    def token_ids(self) -> list[int]:
        return [self.tokens[index] for index in sorted(self.tokens)]

    @property
    def has_ended(self) -> bool:
        return bool(self.endings)


@dataclass(eq=False)
class _Stream:
    number: int
    worker_id: str = ""
    bound: dict[int, tuple[Opening, int | None]] = field(default_factory=dict)
    """By slot: who, and the last index that was said."""
    ended: set[int] = field(default_factory=set)
    """Bound slots of which the end was said."""
    answers: asyncio.Queue[DeliverResponse | None] = field(default_factory=asyncio.Queue)


class GatewayActor(delivery_pb2_grpc.DeliveryServiceServicer):
    """A gateway's end of delivery, and a judge of what comes: `faults` must stay empty."""

    def __init__(self, gateway_id: str) -> None:
        self.gateway_id = gateway_id
        self.address = ""
        self.acknowledges = True
        self.hangs_up = False
        """End every stream as soon as it is opened."""
        self.interceptors: list[grpc.aio.ServerInterceptor] = []
        self.streams = 0
        """Opened so far."""
        self.highest_slot = -1
        self.message_tokens: list[int] = []
        """How many tokens each message brought."""
        self.message_bytes: list[int] = []
        self.faults: list[str] = []
        self._said: dict[tuple[str, int, int], ChoiceDelta] = {}
        self._open: list[_Stream] = []
        self._server: grpc.aio.Server | None = None
        self._port = 0

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = make_server(self.interceptors)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(self, self._server)
        self._port = bind(self._server, "127.0.0.1", self._port)
        self.address = f"127.0.0.1:{self._port}"
        await self._server.start()

    async def stop(self) -> None:
        """End all streams, and be out of reach."""
        if self._server is not None:
            self.break_streams()
            await self._server.stop(grace=0)
            self._server = None

    def break_streams(self) -> None:
        for stream in self._open:
            stream.answers.put_nowait(None)

    def said(self, request_id: str, choice: int = 0, attempt: int = 1) -> ChoiceDelta:
        return self._said.setdefault((request_id, choice, attempt), ChoiceDelta())

    @property
    def open_streams(self) -> int:
        return len(self._open)

    @property
    def bound_slots(self) -> list[int]:
        return sorted(slot for stream in self._open for slot in stream.bound)

    def cancel(self, request_id: str, choice: int = 0) -> None:
        """Want no more of it: a client left."""
        for stream, slot in self._slots_of(request_id, choice):
            self._answer(stream, slot, DeliverResponse(cancelled_slots=[slot]))

    def cancel_together(self, *request_ids: str) -> None:
        """Cancel in this order, in one message; all are on one stream."""
        found = [self._slots_of(request_id, 0)[0] for request_id in request_ids]
        for stream, slot in found:
            del stream.bound[slot]
        response = DeliverResponse(cancelled_slots=[slot for _, slot in found])
        found[0][0].answers.put_nowait(response)

    def acknowledge_all(self) -> None:
        """Take the endings that were heard while `acknowledges` was off."""
        for stream in self._open:
            for slot, (opening, _) in list(stream.bound.items()):
                if self.said(opening.request_id, opening.choice, opening.attempt).has_ended:
                    self._answer(stream, slot, DeliverResponse(acknowledged_slots=[slot]))

    def _slots_of(self, request_id: str, choice: int) -> list[tuple[_Stream, int]]:
        return [
            (stream, slot)
            for stream in self._open
            for slot, (opening, _) in stream.bound.items()
            if (opening.request_id, opening.choice) == (request_id, choice)
        ]

    def _answer(self, stream: _Stream, slot: int, response: DeliverResponse) -> None:
        del stream.bound[slot]
        stream.ended.discard(slot)
        stream.answers.put_nowait(response)

    async def Deliver(  # type: ignore[override]  # noqa: N802 - the coroutine style of grpc.aio
        self,
        request_iterator: AsyncIterator[DeliverRequest],
        context: grpc.aio.ServicerContext[DeliverRequest, DeliverResponse],
    ) -> None:
        self.streams += 1
        stream = _Stream(self.streams)
        if self.hangs_up:
            return
        self._open.append(stream)
        reading = asyncio.create_task(self._read(stream, request_iterator))
        try:
            while (response := await stream.answers.get()) is not None:
                await context.write(response)
        finally:
            reading.cancel()
            self._open.remove(stream)

    async def _read(self, stream: _Stream, messages: AsyncIterator[DeliverRequest]) -> None:
        async for message in messages:
            stream.worker_id = stream.worker_id or message.worker_id
            self._judge(bool(stream.worker_id), f"stream {stream.number} names no worker")
            self.message_tokens.append(len(message.slots))
            self.message_bytes.append(message.ByteSize())
            for opening in message.openings:
                self._take_opening(stream, opening)
            for piece in message.prompt_logprobs:
                self._take_prompt(stream, piece)
            for cached in message.cached_prompts:
                if cached.slot in stream.bound:
                    self._judge(stream.bound[cached.slot][1] is None, "cached, after output")
                    self._said_in(stream, cached.slot).cached_prompts.append(cached.tokens)
            told = by_row(message)
            columns = zip(message.slots, message.indices, message.token_ids, told, strict=True)
            for slot, index, token_id, logprobs in columns:
                self._take_token(stream, slot, index, token_id)
                if logprobs is not None and slot in stream.bound:
                    self._said_in(stream, slot).logprobs[index] = logprobs
            for ending in message.endings:
                self._take_ending(stream, ending)
        stream.answers.put_nowait(None)

    def _take_opening(self, stream: _Stream, opening: Opening) -> None:
        self._judge(opening.slot not in stream.bound, f"slot {opening.slot} was bound already")
        stream.bound[opening.slot] = (opening, None)
        self.highest_slot = max(self.highest_slot, opening.slot)
        self.said(opening.request_id, opening.choice, opening.attempt).openings += 1

    def _said_in(self, stream: _Stream, slot: int) -> ChoiceDelta:
        opening, _ = stream.bound[slot]
        return self.said(opening.request_id, opening.choice, opening.attempt)

    def _take_prompt(self, stream: _Stream, piece: PromptLogprobs) -> None:
        if piece.slot not in stream.bound:
            return
        said = self._said_in(stream, piece.slot)
        if piece.first_index == 0:
            said.prompt_logprobs = Logprobs()
        known = len(said.prompt_logprobs)
        self._judge(piece.first_index == known, f"the prompt from {piece.first_index}, not {known}")
        self._judge(stream.bound[piece.slot][1] is None, "of the prompt, after output")
        said.prompt_logprobs.extend(read_run(piece.logprobs))

    def _take_token(self, stream: _Stream, slot: int, index: int, token_id: int) -> None:
        if slot not in stream.bound:
            return  # acknowledged or cancelled; it was on its way
        opening, last = stream.bound[slot]
        where = f"{opening.request_id}/{opening.choice}/{opening.attempt} index {index}"
        self._judge(last is None or index == last + 1, f"{where} came after {last}")
        self._judge(slot not in stream.ended, f"{where} came after the end")
        stream.bound[slot] = (opening, index)
        said = self.said(opening.request_id, opening.choice, opening.attempt)
        self._judge(said.tokens.get(index, token_id) == token_id, f"{where} was another token")
        said.tokens[index] = token_id

    def _take_ending(self, stream: _Stream, ending: Ending) -> None:
        if ending.slot not in stream.bound:
            return
        opening, last = stream.bound[ending.slot]
        said = self.said(opening.request_id, opening.choice, opening.attempt)
        if last is not None:
            self._judge(ending.output_tokens == last + 1, f"{opening} ended not at {last}")
        self._judge(ending.slot not in stream.ended, f"{opening} ended twice")
        stream.ended.add(ending.slot)
        said.endings.append(ending)
        if self.acknowledges:
            response = DeliverResponse(acknowledged_slots=[ending.slot])
            self._answer(stream, ending.slot, response)

    def _judge(self, is_right: bool, fault: str) -> None:
        if not is_right:
            self.faults.append(fault)


@asynccontextmanager
async def gateway(gateway_id: str = "gw") -> AsyncIterator[GatewayActor]:
    """A gateway that is judged at the end."""
    actor = GatewayActor(gateway_id)
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop()
    assert actor.faults == []


async def has_tokens(gw: GatewayActor, request_id: str, count: int, *, attempt: int = 1) -> None:
    said = gw.said(request_id, attempt=attempt)
    await eventually(lambda: len(said.tokens) >= count)
