"""The other ends of the scheduler's protocol: a worker and a gateway that a test drives.

They speak the real messages over the real bus and compute nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from headrace.bus import Bus, BusError, NoReply, Subscription, subjects
from headrace.clock import SystemClock
from headrace.internal.v1 import dispatch_pb2, reports_pb2, request_pb2
from headrace.internal.v1.model_card_pb2 import ModelCard

MODEL = "tiny"
BEAT_S = 0.05
CALL_S = 2.0


class _Beating:
    """Reports at intervals until it is stopped."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._number = 0
        self._beat: asyncio.Task[None] | None = None
        self._served: list[Subscription] = []

    async def _start(self, answers: dict[str, Any]) -> None:
        for subject, answer in answers.items():
            self._served.append(await self._bus.serve(subject, answer))
        self._beat = asyncio.create_task(self._beats())

    async def _beats(self) -> None:
        while True:
            await self.report()
            await asyncio.sleep(BEAT_S)

    async def report(self) -> None:
        raise NotImplementedError

    async def die(self) -> None:
        """Answer nothing and report nothing from now on."""
        if self._beat is not None:
            self._beat.cancel()
            with suppress(asyncio.CancelledError):
                await self._beat
            self._beat = None
        while self._served:
            await self._served.pop().close()


class WorkerActor(_Beating):
    """Accepts dispatches as long as it has slots; runs a request until `finish`."""

    def __init__(self, bus: Bus, worker_id: str, *, slots: int = 4, digest: str = "w1") -> None:
        super().__init__(bus)
        self.worker_id, self.slots, self.digest = worker_id, slots, digest
        self.running: dict[str, request_pb2.RequestRecord] = {}
        self.accepted: list[request_pb2.RequestRecord] = []
        self.cancelled: list[tuple[str, int]] = []
        self.batches: list[int] = []
        self.refusal: int | None = None
        """Cause with which everything is refused."""
        self.draining = False
        self.card = ModelCard(model=MODEL, weights_digest=digest, max_slots=slots)
        self._counted = (0, 0)

    async def start(self) -> WorkerActor:
        await self._start(
            {
                subjects.dispatch(self.worker_id): self._take,
                subjects.worker_cancel(self.worker_id): self._cancel,
            }
        )
        return self

    @property
    def free_slots(self) -> int:
        return self.slots - sum(max(1, r.n) for r in self.running.values())

    def attempts(self, request_id: str) -> list[int]:
        return [r.attempt for r in self.accepted if r.request_id == request_id]

    async def _take(self, payload: bytes) -> bytes:
        request = dispatch_pb2.DispatchRequest.FromString(payload)
        response = dispatch_pb2.DispatchResponse()
        self.batches.append(len(request.requests))
        for record in request.requests:
            cause = self.refusal
            if cause is None and max(1, record.n) > self.free_slots:
                cause = dispatch_pb2.DISPATCH_REFUSAL_CAUSE_FULL
            if cause is None:
                self.running[record.request_id] = record
                self.accepted.append(record)
            else:
                response.refusals.add(
                    request_id=record.request_id, cause=cause, message="by order of the test"
                )
        self._counted = (request.epoch, request.number)
        return response.SerializeToString()

    async def _cancel(self, payload: bytes) -> bytes:
        request = dispatch_pb2.WorkerCancelRequest.FromString(payload)
        running = self.running.get(request.request_id)
        found = running is not None and running.attempt <= request.attempt
        if found:
            self.cancelled.append((request.request_id, request.attempt))
            await self.finish(request.request_id)
        return dispatch_pb2.WorkerCancelResponse(found=found).SerializeToString()

    async def report(self) -> None:
        self._number += 1
        served = reports_pb2.ServedModel(
            card=self.card,
            total_slots=self.slots,
            free_slots=self.free_slots,
            free_cache_tokens=1000 * self.free_slots,
            dispatch_epoch=self._counted[0],
            dispatch_number=self._counted[1],
            running=[
                reports_pb2.RunningRequest(request_id=i, attempt=r.attempt)
                for i, r in self.running.items()
            ],
        )
        report = reports_pb2.WorkerReport(
            worker_id=self.worker_id,
            name=f"name of {self.worker_id}",
            number=self._number,
            models=[served],
            draining=self.draining,
        )
        await self._bus.publish(subjects.WORKER_REPORTS, report.SerializeToString())

    async def finish(self, request_id: str) -> None:
        """End a request; its slot is free, and a report follows at once."""
        del self.running[request_id]
        await self.report()

    async def park(self, request_id: str, *, error: str | None = None) -> None:
        """Park a request, unfinished."""
        record = self.running.pop(request_id)
        point = reports_pb2.ResumePoint(request_id=request_id, attempt=record.attempt)
        if error is not None:
            point.error.CopyFrom(Status(code=13, message=error))
        message = reports_pb2.ParkRequest(worker_id=self.worker_id, points=[point])
        await self._bus.request(subjects.park(MODEL), message.SerializeToString(), timeout_s=CALL_S)
        await self.report()


class GatewayActor(_Beating):
    """Holds what it has submitted, with what it has relayed, until it settles it."""

    def __init__(self, bus: Bus, gateway_id: str) -> None:
        super().__init__(bus)
        self.gateway_id = gateway_id
        self.relayed: dict[str, list[int]] = {}
        """Output ids by open request."""
        self.fenced: dict[str, int] = {}
        self.ended: dict[str, Status] = {}
        """Ends that came in notices; settled at once."""
        self.settles_ended = True
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> GatewayActor:
        await self._start({subjects.notice(self.gateway_id): self._noticed})
        return self

    async def report(self) -> None:
        self._number += 1
        report = reports_pb2.GatewayReport(gateway_id=self.gateway_id, number=self._number)
        await self._bus.publish(subjects.GATEWAY_REPORTS, report.SerializeToString())

    async def submit(
        self, request_id: str, *, priority: str = "standard", timeout_s: float = 60.0, **fields: Any
    ) -> None:
        """Store a request; returns once it is durable."""
        patience_s = fields.pop("patience_s", 60.0)
        record = request_pb2.RequestRecord(
            request_id=request_id,
            model=MODEL,
            weights_digest=fields.pop("weights_digest", "w1"),
            prompt_ids=fields.pop("prompt_ids", [1, 2, 3]),
            n=fields.pop("n", 1),
            gateway_id=self.gateway_id,
            arrival=_now(),
            deadline=_now(timeout_s),
            patience=_seconds(patience_s),
            **fields,
        )
        record.sampling.max_tokens = 16
        self.relayed[request_id] = []
        await self._bus.submit(MODEL, priority, record.SerializeToString(), message_id=request_id)

    async def settle(self, *request_ids: str, **figures: int) -> None:
        """Settle these requests with `figures`, equal ones; repeated until a leader has
        confirmed."""
        for request_id in request_ids:
            self.relayed.pop(request_id, None)
        message = reports_pb2.SettleRequest(
            gateway_id=self.gateway_id,
            settlements=[reports_pb2.Settlement(request_id=i, **figures) for i in request_ids],
        )
        while True:
            try:
                await self._bus.request(
                    subjects.settle(MODEL), message.SerializeToString(), timeout_s=CALL_S
                )
                return
            except BusError:
                await asyncio.sleep(BEAT_S)

    async def lose(self, worker: WorkerActor, *request_ids: str) -> None:
        """The stream from the worker broke."""
        message = reports_pb2.LostRequest(gateway_id=self.gateway_id, worker_id=worker.worker_id)
        for request_id in request_ids:
            message.points.append(self._point(request_id, worker.attempts(request_id)[-1]))
        await self._bus.request(subjects.lost(MODEL), message.SerializeToString(), timeout_s=CALL_S)

    def _point(self, request_id: str, attempt: int) -> reports_pb2.ResumePoint:
        progress = request_pb2.ChoiceProgress(output_ids=self.relayed[request_id])
        return reports_pb2.ResumePoint(request_id=request_id, attempt=attempt, progress=[progress])

    async def _noticed(self, payload: bytes) -> bytes:
        request = reports_pb2.NoticeRequest.FromString(payload)
        response = reports_pb2.NoticeResponse()
        for notice in request.ended:
            if notice.request_id not in self.relayed:
                response.unknown_request_ids.append(notice.request_id)
                continue
            self.ended[notice.request_id] = notice.error
            if self.settles_ended:
                self._settle_soon(notice.request_id, notice.error.code)
        for fence in request.fences:
            if fence.request_id in self.relayed:
                self.fenced[fence.request_id] = fence.attempt
                response.points.append(self._point(fence.request_id, fence.attempt))
            else:
                response.unknown_request_ids.append(fence.request_id)
        return response.SerializeToString()

    def _settle_soon(self, request_id: str, code: int) -> None:
        task = asyncio.create_task(self.settle(request_id, code=code))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


async def find(bus: Bus, request_id: str) -> reports_pb2.LocateResponse:
    """Return the answer of the model's leader; not found while there is no leader."""
    return await _locate(bus, request_id, reports_pb2.LocateRequest.VERB_FIND)


async def is_found(bus: Bus, request_id: str) -> bool:
    """Return whether the model's leader holds a request."""
    return (await find(bus, request_id)).found


async def is_gone(bus: Bus, request_id: str) -> bool:
    return not await is_found(bus, request_id)


async def next_lane_report(bus: Bus) -> dict[str, reports_pb2.LaneState]:
    """Return the lanes, by priority, of the leader's next report."""
    received: asyncio.Queue[bytes] = asyncio.Queue()
    subscription = await bus.subscribe(subjects.LANE_REPORTS, received.put_nowait)
    report = reports_pb2.LaneReport.FromString(await asyncio.wait_for(received.get(), 5))
    await subscription.close()
    return {subjects.PRIORITIES[lane.priority - 1]: lane for lane in report.lanes}


async def cancel(bus: Bus, request_id: str) -> reports_pb2.LocateResponse:
    """Cancel a request; return how it stood."""
    return await _locate(bus, request_id, reports_pb2.LocateRequest.VERB_CANCEL)


async def _locate(
    bus: Bus, request_id: str, verb: reports_pb2.LocateRequest.Verb.ValueType
) -> reports_pb2.LocateResponse:
    request = reports_pb2.LocateRequest(request_id=request_id, verb=verb)
    payload = request.SerializeToString()
    try:
        answer = await bus.request(subjects.locate(MODEL), payload, timeout_s=CALL_S)
    except NoReply:
        return reports_pb2.LocateResponse()
    return reports_pb2.LocateResponse.FromString(answer)


async def unsettled(bus: Bus) -> list[str]:
    """Requests that are still stored. Takes the lanes away from whoever reads them."""
    left: list[str] = []
    for priority in subjects.PRIORITIES:
        lane = await bus.take_over(MODEL, priority)
        while pulled := await lane.pull(max_messages=100, timeout_s=0.1):
            left += [request_pb2.RequestRecord.FromString(p.payload).request_id for p in pulled]
        await lane.close()
    return left


def _now(plus_s: float = 0.0) -> Timestamp:
    when = Timestamp()
    when.FromNanoseconds(int((SystemClock().unix_s() + plus_s) * 1e9))
    return when


def _seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
