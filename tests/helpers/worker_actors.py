"""What stands around a worker: a gateway that listens, a scheduler that dispatches, a process."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.internal.v1 import delivery_pb2_grpc
from headrace.internal.v1.delivery_pb2 import DeliverRequest, DeliverResponse, Ending, Opening
from headrace.internal.v1.dispatch_pb2 import (
    DispatchRefusal,
    DispatchRequest,
    DispatchResponse,
    WorkerCancelRequest,
    WorkerCancelResponse,
)
from headrace.internal.v1.reports_pb2 import ParkRequest, ParkResponse, ResumePoint, WorkerReport
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord, Sampling
from headrace.rpc.server import bind, make_server
from headrace.rpc.status import from_status
from headrace_worker.app import WorkerApp
from headrace_worker.engine.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.loaded import GenerationDefaults, LoadedModel
from headrace_worker.engine.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
    kill_this_process,
)
from headrace_worker.engine.scripted_text import scripted_tokenizer_files
from headrace_worker.settings import WorkerSettings
from helpers.eventually import eventually
from helpers.running_engine import alone

MODEL = "toy"
DIGEST = "scripted-1"
ENDLESS = 100_000
NO_FAULTS = ScriptedFaults()


def record(
    request_id: str,
    gateway: GatewayActor,
    *,
    attempt: int = 1,
    max_tokens: int = 20,
    progress: Iterable[ChoiceProgress] = (),
    **fields: Any,
) -> RequestRecord:
    """A request that runs for exactly `max_tokens` tokens a choice."""
    prompt_ids = [10 + (len(request_id) * 7 + byte) % 200 for byte in request_id.encode()]
    values: dict[str, Any] = {
        "request_id": request_id,
        "model": MODEL,
        "weights_digest": DIGEST,
        "prompt_ids": prompt_ids,
        "sampling": Sampling(
            max_tokens=max_tokens, temperature=1, top_p=1, repetition_penalty=1, ignore_eos=True
        ),
        "seed": 7,
        "n": 1,
        "gateway_id": gateway.gateway_id,
        "delivery_address": gateway.address,
        "attempt": attempt,
        "progress": progress,
    }
    return RequestRecord(**values | fields)


def undisturbed(request: RequestRecord, choice: int = 0) -> list[int]:
    """All tokens of a choice, from an engine that runs nothing else."""
    parameters = SamplingParameters(
        max_tokens=request.sampling.max_tokens, temperature=1.0, ignore_eos=True
    )
    sequence = Sequence(0, tuple(request.prompt_ids), (), parameters, request.seed + choice)
    return alone(ScriptedEngine(ScriptedSettings(context_tokens=2 * ENDLESS)), sequence)


@dataclass
class Said:
    """What a gateway heard of one choice of one attempt, over all streams."""

    tokens: dict[int, int] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    openings: int = 0

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
    answers: asyncio.Queue[DeliverResponse | None] = field(default_factory=asyncio.Queue)


class GatewayActor(delivery_pb2_grpc.DeliveryServiceServicer):
    """A gateway's end of delivery, and a judge of what comes: `faults` must stay empty."""

    def __init__(self, gateway_id: str) -> None:
        self.gateway_id = gateway_id
        self.address = ""
        self.acknowledges = True
        self.hangs_up = False
        """End every stream as soon as it is opened."""
        self.streams = 0
        """Opened so far."""
        self.highest_slot = -1
        self.message_tokens: list[int] = []
        """How many tokens each message brought."""
        self.faults: list[str] = []
        self._said: dict[tuple[str, int, int], Said] = {}
        self._open: list[_Stream] = []
        self._server: grpc.aio.Server | None = None
        self._port = 0

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = make_server()
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

    def said(self, request_id: str, choice: int = 0, attempt: int = 1) -> Said:
        return self._said.setdefault((request_id, choice, attempt), Said())

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
            for opening in message.openings:
                self._take_opening(stream, opening)
            columns = zip(message.slots, message.indices, message.token_ids, strict=True)
            for slot, index, token_id in columns:
                self._take_token(stream, slot, index, token_id)
            for ending in message.endings:
                self._take_ending(stream, ending)
        stream.answers.put_nowait(None)

    def _take_opening(self, stream: _Stream, opening: Opening) -> None:
        self._judge(opening.slot not in stream.bound, f"slot {opening.slot} was bound already")
        stream.bound[opening.slot] = (opening, None)
        self.highest_slot = max(self.highest_slot, opening.slot)
        self.said(opening.request_id, opening.choice, opening.attempt).openings += 1

    def _take_token(self, stream: _Stream, slot: int, index: int, token_id: int) -> None:
        if slot not in stream.bound:
            return  # acknowledged or cancelled; it was on its way
        opening, last = stream.bound[slot]
        where = f"{opening.request_id}/{opening.choice}/{opening.attempt} index {index}"
        self._judge(last is None or index == last + 1, f"{where} came after {last}")
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


class SchedulerActor:
    """A leader: dispatches, cancels, hears reports, takes what is parked."""

    def __init__(self, bus: JetStreamBus) -> None:
        self.reports: list[WorkerReport] = []
        self.heard_at_s: list[float] = []
        self.parked: list[ResumePoint] = []
        self.park_requests = 0
        self.answers_parks = True
        self._bus = bus
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        await self._bus.subscribe(subjects.WORKER_REPORTS, self._hear)
        await self._bus.serve(subjects.park(MODEL), self._park)

    def _hear(self, payload: bytes) -> None:
        self.reports.append(WorkerReport.FromString(payload))
        self.heard_at_s.append(time.monotonic())

    async def _park(self, payload: bytes) -> bytes:
        request = ParkRequest.FromString(payload)
        self.park_requests += 1
        if not self.answers_parks:
            raise RuntimeError("this leader is told not to answer")
        self.parked.extend(request.points)
        return ParkResponse().SerializeToString()

    @property
    def last(self) -> WorkerReport:
        return self.reports[-1]

    @property
    def free_slots(self) -> int:
        return self.last.models[0].free_slots

    @property
    def running(self) -> dict[str, int]:
        return {r.request_id: r.attempt for r in self.last.models[0].running}

    async def first_worker(self) -> str:
        """The id of the first worker that reports."""
        await eventually(lambda: bool(self.reports), within_s=20)
        return self.last.worker_id

    async def dispatch(
        self,
        worker_id: str,
        *records: RequestRecord,
        epoch: int = 1,
        number: int | None = None,
    ) -> list[DispatchRefusal]:
        request = DispatchRequest(
            scheduler_id="actor",
            epoch=epoch,
            number=next(self._numbers) if number is None else number,
            requests=records,
        )
        subject = subjects.dispatch(worker_id)
        answer = await self._bus.request(subject, request.SerializeToString(), timeout_s=5)
        return list(DispatchResponse.FromString(answer).refusals)

    async def cancel(self, worker_id: str, request_id: str, *, attempt: int = 1, code: int) -> bool:
        request = WorkerCancelRequest(request_id=request_id, attempt=attempt, code=code)
        subject = subjects.worker_cancel(worker_id)
        answer = await self._bus.request(subject, request.SerializeToString(), timeout_s=5)
        return WorkerCancelResponse.FromString(answer).found


@dataclass
class WorkerProcess:
    """A worker as its operator sees it."""

    process: asyncio.subprocess.Process

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_status(self, *, within_s: float = 20) -> int:
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@asynccontextmanager
async def worker_process(
    nats_url: str, directory: Path, **settings: object
) -> AsyncIterator[WorkerProcess]:
    """`python -m headrace_worker` with the scripted engine; killed at the end if it still runs."""
    chosen = _settings(nats_url, settings)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    with (directory / "worker.log").open("w") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace_worker", *flags, stdout=out, stderr=out
        )
    try:
        yield WorkerProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass
class WorkerHere:
    """A worker within this process."""

    app: WorkerApp
    run: asyncio.Task[int]

    async def stop(self) -> int:
        self.app.stop()
        return await self.exit_status()

    @property
    def is_idle(self) -> bool:
        return self.app.held_sequences == 0

    async def exit_status(self) -> int:
        """What the process would exit with, once it has drained."""
        async with asyncio.timeout(20):
            return await asyncio.shield(self.run)


@asynccontextmanager
async def worker_here(
    nats_url: str, engine: Engine | None = None, **settings: object
) -> AsyncIterator[WorkerHere]:
    """The whole app on this event loop, with an engine of the test's choice; drained at the end."""
    chosen = WorkerSettings.model_validate(_settings(nats_url, {"drain_s": 0} | settings))
    engine = engine or scripted()
    loaded = LoadedModel(engine, scripted_tokenizer_files(), GenerationDefaults(), parameters=0)
    bus = await connect(nats_url, name="worker")
    app = WorkerApp(chosen, bus, loaded)
    worker = WorkerHere(app, asyncio.create_task(app.run(lambda: None)))
    try:
        yield worker
    finally:
        status = await worker.stop()
        await bus.close()
    app.check_integrity()
    engine.check_integrity()
    assert status == 1 or engine.statistics().running == 0


def _settings(nats_url: str, chosen: Mapping[str, object]) -> dict[str, object]:
    return {
        "nats_url": nats_url,
        "engine": "scripted",
        "model_name": MODEL,
        "report_interval_s": 0.1,
        "orphan_grace_s": 5,
        **chosen,
    }


def scripted(
    *,
    step_s: float = 0.002,
    max_slots: int = 8,
    faults: ScriptedFaults = NO_FAULTS,
    crash: Callable[[], None] = kill_this_process,
) -> ScriptedEngine:
    settings = ScriptedSettings(
        step_s=step_s, max_slots=max_slots, context_tokens=2 * ENDLESS, faults=faults
    )
    return ScriptedEngine(settings, crash=crash)


def error_reason(status: status_pb2.Status) -> str:
    """The ErrorInfo's reason."""
    return from_status(status).reason


def deadline_in(seconds: float) -> Timestamp:
    deadline = Timestamp()
    deadline.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return deadline
