"""The requests that a leader serves: settle, lost, park, find, cancel, take over."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.bus import RequestHandler, subjects
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
    """This leadership is over; the same request reaches the next leader if it is repeated."""


class RequestHandlers:
    """Serves the subjects of one model's leader. A message that cannot be decoded is not
    answered: the bus logs it, and the sender repeats it and counts that in its metrics."""

    def __init__(
        self, machine: Machine, handle: EventHandler, acknowledgements: Acknowledgements
    ) -> None:
        self._machine, self._handle, self._acknowledgements = machine, handle, acknowledgements

    def by_subject(self, model: str) -> dict[str, RequestHandler]:
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
        # Why answer after the broker has confirmed: if this process dies between the two, the
        # gateway repeats it to the next leader, which would otherwise run the requests again.
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
        request = TakeOverRequest.FromString(payload)
        self._submit(TakeOverRequested(request))
        found = self._machine.find(request.request_id)
        if found is None:
            holding = self._machine.is_holding
            return TakeOverResponse(found=holding, pending=holding).SerializeToString()
        return take_over_response(found.request, request).SerializeToString()


def take_over_response(request: Request, message: TakeOverRequest) -> TakeOverResponse:
    """Return the answer to a gateway that requests to take a live request over."""
    record = request.record
    if isinstance(request.state, Orphaned | Held):
        return TakeOverResponse(found=True, pending=True)
    answer = TakeOverResponse(
        found=True, gateway_id=record.gateway_id, delivery_address=record.delivery_address
    )
    if record.gateway_id == message.gateway_id and not message.HasField("point"):
        if not isinstance(request.state, Lost):
            return TakeOverResponse(found=True, pending=True)
        answer.record.CopyFrom(without_prompt(record))
    return answer
