"""The calls that a leader makes: to workers, to gateways, and to the broker's stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from headrace.bus import Bus, BusError, NoResponders, subjects
from headrace.cancellation import recheck_cancelled
from headrace.internal.v1.dispatch_pb2 import (
    DispatchResponse,
    WorkerCancelRequest,
    WorkerParkRequest,
)
from headrace.internal.v1.reports_pb2 import (
    DeadLetter,
    EndedNotice,
    FenceNotice,
    NoticeRequest,
    NoticeResponse,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import RequestOutcome
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership
from headrace_scheduler.request.usage import use_outcome
from headrace_scheduler.runtime.results import store_error, stored_outcome
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelOnWorker,
    Dispatch,
    DispatchAnswered,
    DispatchUnanswered,
    Event,
    NoticeAnswered,
    NoticeUnanswered,
    ParkOnWorker,
    PublishDeadLetter,
    SendNotice,
    StoreResult,
)

log = logging.getLogger(__name__)

RETRY_S = 0.5
MAX_WORKER_CALLS = 32
"""Cancellations and parks in progress at once."""
WORKER_CALL_S = 2.0

Call = (
    Dispatch
    | SendNotice
    | CancelOnWorker
    | ParkOnWorker
    | StoreResult
    | Acknowledge
    | PublishDeadLetter
)
T = TypeVar("T")


class OutgoingCalls:
    """Each call is a task of the leadership and ends with it.

    Bounded: one dispatch per worker and one notice per gateway by the machine's own
    rule; cancellations, parks, results and dead letters by the live requests.
    """

    def __init__(
        self,
        leadership: Leadership,
        bus: Bus,
        settings: SchedulerSettings,
        *,
        handle: Callable[[Event], object],
        acknowledge: Callable[[Acknowledge], None],
    ) -> None:
        self._leadership, self._bus, self._settings = leadership, bus, settings
        self._handle, self._acknowledge = handle, acknowledge
        self._tasks: asyncio.TaskGroup | None = None
        self._in_progress: set[asyncio.Task[None]] = set()
        self._worker_calls = asyncio.Semaphore(MAX_WORKER_CALLS)

    def start_in(self, tasks: asyncio.TaskGroup) -> None:
        """Allow calls from now on; they end with the group."""
        self._tasks = tasks

    @property
    def is_idle(self) -> bool:
        return not self._in_progress

    def start(self, command: Call) -> None:
        assert self._tasks is not None, "a command before the leadership runs"
        task = self._tasks.create_task(self._execute(command))
        self._in_progress.add(task)
        task.add_done_callback(self._in_progress.discard)

    async def _execute(self, command: Call) -> None:
        match command:
            case Dispatch():
                await self._dispatch(command)
            case SendNotice():
                await self._send_notice(command)
            case CancelOnWorker(worker_id, request_id, attempt, code):
                cancel = WorkerCancelRequest(request_id=request_id, attempt=attempt, code=code)
                await self._call_worker("cancel", subjects.worker_cancel(worker_id), cancel)
            case ParkOnWorker(worker_id, request_id, attempt, orphaned):
                epoch = self._leadership.epoch
                park = WorkerParkRequest(
                    epoch=epoch, request_id=request_id, attempt=attempt, orphaned=orphaned
                )
                await self._call_worker("park", subjects.worker_park(worker_id), park)
            case StoreResult(record, error, acknowledge):
                outcome = await _repeat("conclude", lambda: store_error(self._bus, record, error))
                # Why afterwards: the next leader would not know of a request that is acknowledged.
                self._acknowledge_as(acknowledge, outcome)
            case Acknowledge(unsettled=RequestRecord() as record):
                stored = await _repeat("look up", lambda: stored_outcome(self._bus, record))
                self._acknowledge_as(command, stored)
            case Acknowledge():
                self._acknowledge(command)
            case PublishDeadLetter():
                await self.store_dead_letter(command)

    def _acknowledge_as(self, command: Acknowledge, outcome: RequestOutcome | None) -> None:
        """Acknowledge a request with the figures of its result, if there is one."""
        if command.usage is not None and outcome is not None:
            use_outcome(command.usage, outcome)
        self._acknowledge(command)

    async def _dispatch(self, command: Dispatch) -> None:
        subject, timeout_s = subjects.dispatch(command.worker_id), self._settings.dispatch_timeout_s
        payload = command.message.SerializeToString()
        try:
            answer = await self._bus.request(subject, payload, timeout_s=timeout_s)
            refusals = tuple(DispatchResponse.FromString(answer).refusals)
        except (BusError, DecodeError) as error:
            log.warning(
                "dispatch.unanswered", extra={"worker_id": command.worker_id, "why": str(error)}
            )
            is_disconnected = isinstance(error, NoResponders)
            self._handle(DispatchUnanswered(command.worker_id, command.number, is_disconnected))
        else:
            self._handle(DispatchAnswered(command.worker_id, command.number, refusals))

    async def _send_notice(self, command: SendNotice) -> None:
        records = {record.request_id: record for record in command.records}
        notice = NoticeRequest(
            ended=[EndedNotice(request_id=i, error=to_status(e)) for i, e in command.ended],
            fences=[
                FenceNotice(request_id=i, attempt=a, record=records.get(i))
                for i, a in command.fences
            ],
        )
        subject, timeout_s = subjects.notice(command.gateway_id), self._settings.notice_timeout_s
        try:
            answer = await self._bus.request(
                subject, notice.SerializeToString(), timeout_s=timeout_s
            )
            response = NoticeResponse.FromString(answer)
        except (BusError, DecodeError) as error:
            log.info(
                "notice.unanswered", extra={"gateway_id": command.gateway_id, "why": str(error)}
            )
            self._handle(NoticeUnanswered(command, isinstance(error, NoResponders)))
        else:
            unknown = tuple(response.unknown_request_ids)
            self._handle(NoticeAnswered(command, tuple(response.points), unknown))

    async def _call_worker(self, what: str, subject: str, message: Message) -> None:
        """Call once: the worker's next report shows whether the call arrived."""
        payload = message.SerializeToString()
        async with self._worker_calls:
            try:
                await self._bus.request(subject, payload, timeout_s=WORKER_CALL_S)
            except BusError as error:
                log.info(f"{what}.unanswered", extra={"subject": subject, "why": str(error)})

    async def store_dead_letter(self, command: PublishDeadLetter) -> None:
        """Return once the dead letter is stored."""
        model = self._leadership.model
        letter = DeadLetter(
            message=command.message,
            reason=command.reason,
            attempts=command.attempts,
            model=model,
        )
        letter.time.GetCurrentTime()
        payload = letter.SerializeToString()
        await _repeat("bury", lambda: self._bus.store_dead_letter(model, payload))
        reason = "attempts exhausted" if command.attempts else "unreadable"
        metrics.dead_letters.labels(model, reason).inc()


async def _repeat(name: str, call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a call, repeated until the broker has confirmed; `name` labels the
    metric of retries."""
    while True:
        try:
            result = await call()
        except BusError:
            metrics.retried.labels(name).inc()
            await asyncio.sleep(RETRY_S)
        else:
            recheck_cancelled()
            return result
