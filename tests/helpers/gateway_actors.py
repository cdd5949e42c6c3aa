"""A gateway's mesh side and its peers: workers that deliver tokens, leaders that settle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from headrace.bus import Bus, Subscription, subjects
from headrace.clock import SystemClock
from headrace.errors import HeadraceError
from headrace.internal.v1.delivery_pb2 import DeliverRequest, DeliverResponse, Ending, Opening
from headrace.internal.v1.delivery_pb2_grpc import DeliveryServiceStub
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import (
    EndedNotice,
    FenceNotice,
    LaneReport,
    LaneState,
    LocateRequest,
    LocateResponse,
    LostRequest,
    LostResponse,
    NoticeRequest,
    NoticeResponse,
    Settlement,
    SettleRequest,
    SettleResponse,
)
from headrace.internal.v1.request_pb2 import Rendering, RequestRecord, Sampling
from headrace.rpc.delivery_secret import Metadata, RequireDeliverySecret
from headrace.rpc.server import bind, make_server
from headrace.rpc.status import to_status
from headrace.v1 import common_pb2
from headrace.v1.fleet_pb2 import Lane
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.text import StopStrings
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.queue.admission import GatewayAddress
from headrace_gateway.request.generation import (
    Event,
    Generation,
    RecordedRequest,
    Tokens,
    ValidRequest,
)
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.wiring import Mesh, serve_delivery
from helpers.scripted_keeper import NO_LIMITS, FixedRows
from helpers.tiny_tokenizers import bundle, byte_level

MODEL = "toy"


@dataclass
class RunningMesh:
    """A gateway's mesh side with its delivery server on a real port."""

    mesh: Mesh
    address: str

    async def open(self, request_id: str, *, n: int = 1, max_tokens: int = 100) -> Generation:
        return await self.mesh.admission.open(valid_request(request_id, n=n, max_tokens=max_tokens))

    def open_request(self, request_id: str) -> OpenRequest:
        found = self.mesh.requests.find(request_id)
        assert found is not None, f"{request_id} is not open"
        return found

    def lanes(self) -> Iterator[Lane]:
        return self.mesh.lanes.lanes(self.mesh.clock.monotonic_s())


@asynccontextmanager
async def running_mesh(
    bus: Bus,
    gateway_id: str = "gw",
    *,
    models: Sequence[str] | None = (MODEL, "orphan"),
    rows: FixedRows = NO_LIMITS,
    **settings: object,
) -> AsyncIterator[RunningMesh]:
    chosen = GatewaySettings.model_validate(
        {"worker_reconnect_grace_s": 0.1, "leader_answer_timeout_s": 0.3} | settings
    )
    server = make_server([RequireDeliverySecret(chosen.delivery_secret)])
    address = f"127.0.0.1:{bind(server, '127.0.0.1', 0)}"
    mesh = Mesh(
        chosen,
        bus,
        SystemClock(),
        GatewayAddress(gateway_id, address),
        build_answer=build_answer,
        models=lambda: models,
        rows=rows,
    )
    serve_delivery(server, mesh)
    await server.start()
    async with mesh.running():
        try:
            yield RunningMesh(mesh, address)
        finally:
            await server.stop(grace=0)
    mesh.requests.check_integrity()


def build_answer(generation: Generation) -> Answer:
    """Build the answer of a model whose tokens are characters."""
    record = generation.record
    request = RecordedRequest(record)
    tokenizer = Tokenizer(bundle(byte_level()), inline_characters=2048)
    stops = StopStrings(tuple(record.rendering.stop)) if record.rendering.stop else None
    streams = [tokenizer.text_stream(stops, frozenset()) for _ in range(request.n)]
    made = OutputAssembler(
        streams, prompt_tokens=request.prompt_tokens, request_id=request.request_id
    )
    return Answer(generation, request, made, tokenizer)


def valid_request(
    request_id: str,
    *,
    n: int = 1,
    max_tokens: int = 100,
    timeout_s: float = 60.0,
    priority: common_pb2.Priority.ValueType = common_pb2.PRIORITY_STANDARD,
    background: bool = False,
    stop: tuple[str, ...] = (),
) -> ValidRequest:
    return ValidRequest(
        request_id=request_id,
        card=ModelCard(model=MODEL, weights_digest="w1"),
        prompt_ids=(1, 2, 3),
        sampling=Sampling(max_tokens=max_tokens),
        seed=11,
        n=n,
        priority=priority,
        timeout_s=timeout_s,
        patience_s=30.0,
        trace_context={"traceparent": "00-1-2-01"},
        background=background,
        rendering=Rendering(stop=stop),
    )


class WorkerActor:
    """A worker's end of one delivery stream, as a script for it."""

    def __init__(self, address: str, worker_id: str, metadata: Metadata = ()) -> None:
        self.worker_id = worker_id
        self.acknowledged: list[int] = []
        self.cancelled: list[int] = []
        self._channel = grpc.aio.insecure_channel(address)
        self._call = DeliveryServiceStub(self._channel).Deliver(metadata=metadata)
        self._listening = asyncio.create_task(self._listen())
        self._slots = itertools.count(1)
        self._named = False

    async def send(
        self,
        *,
        openings: Iterable[Opening] = (),
        tokens: Iterable[tuple[int, int, int]] = (),
        endings: Iterable[Ending] = (),
    ) -> None:
        """One message; `tokens` are (slot, index, token id)."""
        columns = list(zip(*tokens, strict=True)) or [(), (), ()]
        message = DeliverRequest(
            worker_id="" if self._named else self.worker_id,
            openings=openings,
            slots=columns[0],
            indices=columns[1],
            token_ids=columns[2],
            endings=endings,
        )
        self._named = True
        await self._call.write(message)

    async def start(self, request_id: str, *, attempt: int, choice: int = 0) -> int:
        """Open a sequence; returns its slot."""
        slot = next(self._slots)
        await self.send(
            openings=[Opening(slot=slot, request_id=request_id, choice=choice, attempt=attempt)]
        )
        return slot

    async def run_on(self, slot: int, *, first: int, ids: list[int]) -> None:
        await self.send(tokens=[(slot, first + i, token) for i, token in enumerate(ids)])

    async def end(
        self,
        slot: int,
        *,
        output_tokens: int,
        reason: common_pb2.FinishReason.ValueType = common_pb2.FINISH_REASON_LENGTH,
        error: HeadraceError | None = None,
    ) -> None:
        status = None if error is None else to_status(error)
        ending = Ending(slot=slot, finish_reason=reason, output_tokens=output_tokens, error=status)
        await self.send(endings=[ending])

    async def finish(self) -> None:
        """Half-close: everything has been said; returns when the gateway has closed too."""
        await self._call.done_writing()
        await self._listening

    @property
    def is_closed(self) -> bool:
        return self._listening.done()

    async def vanish(self) -> None:
        """The process dies."""
        self._call.cancel()
        await self._channel.close()
        # Why not `wait`: an error that nobody took is told whenever the task is collected, with a
        # traceback; in the midst of another parse, CPython 3.11 takes that for its own fault.
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        while (response := await self._call.read()) is not grpc.aio.EOF:
            assert isinstance(response, DeliverResponse)
            self.acknowledged += response.acknowledged_slots
            self.cancelled += response.cancelled_slots


@asynccontextmanager
async def worker(address: str, worker_id: str = "w1") -> AsyncIterator[WorkerActor]:
    actor = WorkerActor(address, worker_id)
    try:
        yield actor
    finally:
        await actor.vanish()


@dataclass
class LeaderActor:
    """A model's leader, as gateways see it."""

    bus: Bus
    settled: list[Settlement] = field(default_factory=list)
    lost: list[LostRequest] = field(default_factory=list)
    settle_messages: int = 0
    knows: dict[str, LocateResponse] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    located: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    """Gateways to which the senders of VERB_TAKE_OVER could not connect."""
    unconfirmed: int = 0
    """So many takeovers are not confirmed."""

    def has_settled(self, count: int) -> bool:
        return len(self.settled) == count

    async def notify(
        self,
        *,
        ended: dict[str, HeadraceError] | None = None,
        fences: dict[str, int] | None = None,
        reassigned: Iterable[RequestRecord] = (),
        gateway_id: str = "gw",
    ) -> NoticeResponse:
        ends = [EndedNotice(request_id=i, error=to_status(e)) for i, e in (ended or {}).items()]
        notice = NoticeRequest(
            ended=ends,
            fences=[
                *(FenceNotice(request_id=i, attempt=a) for i, a in (fences or {}).items()),
                *(
                    FenceNotice(request_id=r.request_id, attempt=r.attempt, record=r)
                    for r in reassigned
                ),
            ],
        )
        subject, payload = subjects.notice(gateway_id), notice.SerializeToString()
        return NoticeResponse.FromString(await self.bus.request(subject, payload, timeout_s=2.0))

    async def report(self, *, waiting: int, max_waiting: int) -> None:
        """The state of the standard lane."""
        standard = common_pb2.PRIORITY_STANDARD
        state = LaneState(priority=standard, waiting=waiting, max_waiting=max_waiting)
        report = LaneReport(scheduler_id="s1", model=MODEL, epoch=1, lanes=[state])
        await self.bus.publish(subjects.LANE_REPORTS, report.SerializeToString())

    async def on_settle(self, payload: bytes) -> bytes:
        self.settle_messages += 1
        self.settled += SettleRequest.FromString(payload).settlements
        return SettleResponse().SerializeToString()

    async def on_lost(self, payload: bytes) -> bytes:
        self.lost.append(LostRequest.FromString(payload))
        return LostResponse().SerializeToString()

    async def on_locate(self, payload: bytes) -> bytes:
        message = LocateRequest.FromString(payload)
        self.located.append(message.request_id)
        if message.verb == LocateRequest.VERB_CANCEL:
            self.cancelled.append(message.request_id)
        if message.unreachable_gateway_id:
            self.unreachable.append(message.unreachable_gateway_id)
        if message.HasField("point") and self.unconfirmed:
            self.unconfirmed -= 1
            return LocateResponse(found=True, pending=True).SerializeToString()
        return self.knows.get(message.request_id, LocateResponse()).SerializeToString()


@asynccontextmanager
async def leader(bus: Bus, model: str = MODEL) -> AsyncIterator[LeaderActor]:
    actor = LeaderActor(bus)
    served: list[Subscription] = [
        await bus.serve(subjects.settle(model), actor.on_settle),
        await bus.serve(subjects.lost(model), actor.on_lost),
        await bus.serve(subjects.locate(model), actor.on_locate),
    ]
    try:
        yield actor
    finally:
        for subscription in served:
            await subscription.close()


async def read(generation: Generation) -> list[Event]:
    """Everything until the end, contiguous tokens of a choice joined."""
    joined: list[Event] = []
    open_runs: dict[int, Tokens] = {}
    async for events in generation.events():
        for event in events:
            run = open_runs.get(event.choice) if isinstance(event, Tokens) else None
            if isinstance(event, Tokens) and run is not None:
                assert event.first_index == run.first_index + len(run.token_ids)
                run.token_ids.extend(event.token_ids)
                continue
            if isinstance(event, Tokens):
                open_runs[event.choice] = event
            joined.append(event)
    return joined


async def read_some(generation: Generation, *, tokens: int) -> list[int]:
    """Token ids of choice 0 until there are `tokens` of them. Ends its iteration."""
    ids: list[int] = []
    async for events in generation.events():
        ids += [token for event in events for token in getattr(event, "token_ids", [])]
        if len(ids) >= tokens:
            break
    return ids
