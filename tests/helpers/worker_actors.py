"""Workers in this process and in their own, and the scheduler that dispatches to them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.internal.v1.dispatch_pb2 import (
    DispatchRefusal,
    DispatchRequest,
    DispatchResponse,
    WorkerCancelRequest,
    WorkerCancelResponse,
    WorkerParkRequest,
    WorkerParkResponse,
)
from headrace.internal.v1.reports_pb2 import ParkRequest, ParkResponse, ResumePoint, WorkerReport
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord, Sampling
from headrace.rpc.status import from_status
from headrace_worker.app import WorkerApp
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
    kill_this_process,
)
from headrace_worker.engine.backends.scripted_text import scripted_tokenizer_files
from headrace_worker.engine.base.interface import Engine, SamplingParameters, Sequence
from headrace_worker.engine.base.loaded_model import CachedBlocks, LoadedModel, ModelLoadFailed
from headrace_worker.serving.reloader import Load
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor
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


class SchedulerActor:
    """A leader: dispatches, cancels, hears reports, takes what is parked."""

    def __init__(self, bus: JetStreamBus) -> None:
        self.reports: list[WorkerReport] = []
        self.heard_at_s: list[float] = []
        self.parked: list[ResumePoint] = []
        self.park_requests = 0
        self.answers_parks = True
        self._running: dict[str, dict[str, int]] = {}
        self._bus = bus
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        await self._bus.subscribe(subjects.WORKER_REPORTS, self._hear)
        await self._bus.serve(subjects.park(MODEL), self._park)

    def _hear(self, payload: bytes) -> None:
        report = WorkerReport.FromString(payload)
        for served in report.models:
            known = self._running.setdefault(report.worker_id, {})
            if not report.since:
                known.clear()
            known.update({r.request_id: r.attempt for r in served.running})
            for request_id in served.ended:
                known.pop(request_id, None)
        self.reports.append(report)
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
        """What the worker that spoke last runs, by all that it has said."""
        return dict(self._running.get(self.last.worker_id, {}))

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
        seconds_left: Iterable[float] = (),
    ) -> list[DispatchRefusal]:
        request = DispatchRequest(
            scheduler_id="actor",
            epoch=epoch,
            number=next(self._numbers) if number is None else number,
            requests=records,
            seconds_left=seconds_left,
        )
        subject = subjects.dispatch(worker_id)
        answer = await self._bus.request(subject, request.SerializeToString(), timeout_s=5)
        return list(DispatchResponse.FromString(answer).refusals)

    async def cancel(self, worker_id: str, request_id: str, *, attempt: int = 1, code: int) -> bool:
        request = WorkerCancelRequest(request_id=request_id, attempt=attempt, code=code)
        subject = subjects.worker_cancel(worker_id)
        answer = await self._bus.request(subject, request.SerializeToString(), timeout_s=5)
        return WorkerCancelResponse.FromString(answer).found

    async def ask_to_park(
        self, worker_id: str, request_id: str, *, attempt: int = 1, epoch: int = 1
    ) -> bool:
        request = WorkerParkRequest(request_id=request_id, attempt=attempt, epoch=epoch)
        subject = subjects.worker_park(worker_id)
        answer = await self._bus.request(subject, request.SerializeToString(), timeout_s=5)
        return WorkerParkResponse.FromString(answer).found


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
    nats_url: str,
    directory: Path,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> AsyncIterator[WorkerProcess]:
    """`python -m headrace_worker` with the scripted engine; killed at the end if it still runs.

    Its output is in `directory`/worker.log. `environment` comes on top of this process's.
    """
    chosen = _settings(nats_url, settings)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    with (directory / "worker.log").open("w") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace_worker", *flags),
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
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
        return all(serving.worker.idle for serving in self.app.reloader.servers)

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot, a link or a timer belongs to no request."""
        for serving in self.app.reloader.servers:
            serving.worker.check_integrity()

    async def exit_status(self) -> int:
        """What the process would exit with, once it has drained."""
        async with asyncio.timeout(20):
            return await asyncio.shield(self.run)


async def _no_load(settings: WorkerSettings) -> LoadedModel:
    raise ModelLoadFailed(settings.model_source, "this worker has one engine and no other")


@asynccontextmanager
async def worker_here(
    nats_url: str,
    engine: Engine | None = None,
    *,
    load: Load = _no_load,
    cached_blocks: CachedBlocks | None = None,
    **settings: object,
) -> AsyncIterator[WorkerHere]:
    """The whole app on this event loop, with an engine of the test's choice; drained at the end.

    `load` gives what it serves after a reload.
    """
    chosen = WorkerSettings.model_validate(_settings(nats_url, {"drain_s": 0} | settings))
    engine = engine or scripted()
    files = scripted_tokenizer_files()
    loaded = LoadedModel(engine, files, {}, parameters=0, cached_blocks=cached_blocks)
    bus = await connect(nats_url, name="worker")
    app = WorkerApp(chosen, bus, loaded, reread=lambda: chosen, load=load)
    worker = WorkerHere(app, asyncio.create_task(app.run()))
    try:
        yield worker
    finally:
        status = await worker.stop()
        await bus.close()
        gc.unfreeze()  # a reload froze this process's objects, those of the tests among them
    worker.check_integrity()
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
