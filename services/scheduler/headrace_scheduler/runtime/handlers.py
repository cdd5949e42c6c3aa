"""The requests that a leader serves: settle, lost, park, list, find, cancel, take over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from headrace.bus import BusError, LaneReader, RequestHandler, subjects
from headrace.cancellation import recheck_cancelled
from headrace.internal.v1.operations_pb2 import ListLiveRequestsRequest
from headrace.internal.v1.reports_pb2 import (
    LocateRequest,
    LocateResponse,
    LostRequest,
    LostResponse,
    ParkRequest,
    ParkResponse,
    SettleRequest,
    SettleResponse,
)
from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.request.live_list import first_of, page
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
CATCH_UP_TIMEOUT_S = 0.5
"""How long a request that is not known may take to be read: less than its caller waits."""
CATCH_UP_POLL_S = 0.01
LISTED_AT_ONCE = 5_000
T = TypeVar("T")


class EventHandler(Protocol):
    def __call__(self, *events: Event) -> bool: ...


class NotLeading(Exception):
    """This leadership is over; the same request reaches the next leader if it is repeated."""


class SharedCall(Generic[T]):
    """A function that is called once for all that wait for its result.

    Each caller gets the result of a call that began after its own:

        a calls      call 1 begins
        b, c call    they wait: call 1 may have looked too early for them
        a returns    call 2 begins, for b and c
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._one_at_a_time = asyncio.Lock()
        self._begun = self._done = 0
        self._result: list[T] = []

    async def __call__(self) -> T:
        number = self._begun + 1
        async with self._one_at_a_time:
            if self._done < number:
                self._begun += 1
                self._result = [await self._function()]
                self._done = self._begun
            return self._result[0]


class RequestHandlers:
    """Serves the subjects of one model's leader. A message that cannot be decoded is not
    answered: the bus logs it, and the sender repeats it and counts that in its metrics."""

    def __init__(
        self,
        machine: Machine,
        handle: EventHandler,
        acknowledgements: Acknowledgements,
        lane_ends: Callable[[], Awaitable[Sequence[tuple[LaneReader, int]]]],
    ) -> None:
        self._machine, self._handle, self._acknowledgements = machine, handle, acknowledgements
        self._lane_ends = lane_ends

    def by_subject(self, model: str) -> dict[str, RequestHandler]:
        return {
            subjects.settle(model): self._settle,
            subjects.lost(model): self._lost,
            subjects.park(model): self._park,
            subjects.locate(model): self._locate,
            subjects.live_requests(model): self._list,
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

    async def _locate(self, payload: bytes) -> bytes:
        message = LocateRequest.FromString(payload)
        if not await self._has_read(message.request_id):
            takes_over = message.verb == LocateRequest.VERB_TAKE_OVER
            return LocateResponse(found=takes_over, pending=True).SerializeToString()
        match message.verb:
            case LocateRequest.VERB_CANCEL:
                # Why before: the answer tells how the request stood.
                location = self._location(message)
                self._submit(CancelRequested(message.request_id))
                return location.SerializeToString()
            case LocateRequest.VERB_TAKE_OVER:
                self._submit(TakeOverRequested(message))
            case LocateRequest.VERB_FIND:
                pass
            case other:
                raise ValueError(f"verb {other} is unknown")
        return self._location(message).SerializeToString()

    async def _list(self, payload: bytes) -> bytes:
        query = ListLiveRequestsRequest.FromString(payload)
        found: list[Request] = []
        # Why in parts: to look through 100,000 requests at once would delay dispatches.
        live = self._machine.requests()
        for first in range(0, len(live), LISTED_AT_ONCE):
            found = first_of([*found, *live[first : first + LISTED_AT_ONCE]], query)
            await asyncio.sleep(0)
        return page(found, query, self._machine.worker_name).SerializeToString()

    async def _has_read(self, request_id: str) -> bool:
        """Wait until a request is known, or all is read that was stored before this call; return
        whether either is so.

        Why: its id is given out as soon as it is stored, a moment before it is read here.
        """
        if self._machine.find(request_id) is not None:
            return True
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                ends = await self._lane_ends()
                while self._machine.find(request_id) is None and any(
                    lane.arrived < end for lane, end in ends
                ):
                    await asyncio.sleep(CATCH_UP_POLL_S)
        except (BusError, TimeoutError):
            recheck_cancelled()
            return False
        return True

    def _location(self, message: LocateRequest) -> LocateResponse:
        takes_over = message.verb == LocateRequest.VERB_TAKE_OVER
        found = self._machine.find(message.request_id)
        if found is None:
            pending = self._machine.is_holding
            return LocateResponse(found=takes_over and pending, pending=pending)
        if takes_over:
            return take_over_response(found, message)
        record = without_prompt(found.record)
        record.ClearField("progress")
        return LocateResponse(
            found=True,
            record=record,
            running=found.is_running,
            worker_name=self._machine.worker_name(found),
            waits_for_quota=found.waits_for_quota,
        )


def take_over_response(request: Request, message: LocateRequest) -> LocateResponse:
    """Return the answer to a gateway that requests to take over this request."""
    record = without_prompt(request.record)
    is_holder = record.gateway_id == message.gateway_id and not message.HasField("point")
    if isinstance(request.state, Orphaned | Held) or (
        is_holder and not isinstance(request.state, Lost)
    ):
        return LocateResponse(found=True, pending=True)
    if not is_holder:
        record.ClearField("progress")
    return LocateResponse(found=True, record=record)
