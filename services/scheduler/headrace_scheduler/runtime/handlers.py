"""What a leader answers: settle, lost, park, find."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.bus import Answer, subjects
from headrace.internal.v1.reports_pb2 import (
    CancelRequest,
    FindRequest,
    FindResponse,
    LostRequest,
    LostResponse,
    ParkRequest,
    ParkResponse,
    SettleRequest,
    SettleResponse,
    TakeOverRequest,
    TakeOverResponse,
)
from headrace.v1.common_pb2 import Priority
from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.request.live_request import Held, Lost, Orphaned, Request, without_prompt
from headrace_scheduler.runtime.acknowledgements import Acknowledgements
from headrace_scheduler.state.events import (
    CancelRequested,
    Event,
    Parked,
    Settled,
    StreamLost,
    TakeOverRequested,
)

SETTLE_TIMEOUT_S = 2.0


class EventHandler(Protocol):
    def __call__(self, *events: Event) -> bool: ...


class NotLeading(Exception):
    """What was said reaches our successor, if it is said again."""


class RequestHandlers:
    """Serves the subjects of one model's leader. A message that cannot be decoded stays
    unanswered: the bus logs it, and who asked repeats it and shows in its own metrics."""

    def __init__(
        self, machine: Machine, handle: EventHandler, acknowledgements: Acknowledgements
    ) -> None:
        self._machine, self._handle, self._acknowledgements = machine, handle, acknowledgements

    def by_subject(self, model: str) -> dict[str, Answer]:
        return {
            subjects.settle(model): self._settle,
            subjects.lost(model): self._lost,
            subjects.park(model): self._park,
            subjects.find(model): self._find,
            subjects.cancel(model): self._cancel,
            subjects.take_over(model): self._take_over,
        }

    def _submit(self, event: Event) -> None:
        if not self._handle(event):
            raise NotLeading("this leadership is over; nothing was done")

    async def _settle(self, payload: bytes) -> bytes:
        request = SettleRequest.FromString(payload)
        self._submit(Settled(request))
        # Why: answer after the broker has confirmed. If we die between the two, the
        # gateway says it again to our successor, who would otherwise run them once more.
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await self._acknowledgements.confirmed([s.request_id for s in request.settlements])
        return SettleResponse().SerializeToString()

    async def _lost(self, payload: bytes) -> bytes:
        self._submit(StreamLost(LostRequest.FromString(payload)))
        return LostResponse().SerializeToString()

    async def _park(self, payload: bytes) -> bytes:
        self._submit(Parked(ParkRequest.FromString(payload)))
        return ParkResponse().SerializeToString()

    async def _find(self, payload: bytes) -> bytes:
        return self._found(FindRequest.FromString(payload).request_id)

    async def _cancel(self, payload: bytes) -> bytes:
        request_id = CancelRequest.FromString(payload).request_id
        self._submit(CancelRequested(request_id))
        return self._found(request_id)

    def _found(self, request_id: str) -> bytes:
        found = self._machine.find(request_id)
        if found is None:
            return FindResponse(pending=self._machine.is_holding).SerializeToString()
        record = without_prompt(found.request.record)
        record.ClearField("progress")
        return FindResponse(
            found=True,
            model=record.model,
            priority=Priority.Value(f"PRIORITY_{found.request.priority.upper()}"),
            running=found.running,
            attempt=record.attempt,
            worker_name=found.worker_name,
            arrival=record.arrival if record.HasField("arrival") else None,
            record=record,
        ).SerializeToString()

    async def _take_over(self, payload: bytes) -> bytes:
        asked = TakeOverRequest.FromString(payload)
        self._submit(TakeOverRequested(asked))
        found = self._machine.find(asked.request_id)
        if found is None:
            holding = self._machine.is_holding
            return TakeOverResponse(found=holding, pending=holding).SerializeToString()
        return taken_over(found.request, asked).SerializeToString()


def taken_over(request: Request, asked: TakeOverRequest) -> TakeOverResponse:
    """What a gateway that wants a request is told."""
    record = request.record
    if isinstance(request.state, Orphaned | Held):
        return TakeOverResponse(found=True, pending=True)
    answer = TakeOverResponse(
        found=True, gateway_id=record.gateway_id, delivery_address=record.delivery_address
    )
    if record.gateway_id == asked.gateway_id and not asked.HasField("point"):
        if not isinstance(request.state, Lost):
            return TakeOverResponse(found=True, pending=True)
        answer.record.CopyFrom(without_prompt(record))
    return answer
