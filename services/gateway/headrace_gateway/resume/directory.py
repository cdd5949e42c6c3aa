"""Locates requests, wherever they are, and opens their output for readers of this gateway.

Own table first, then stored results, then the leader of the request's model. For example, gateway h
has a client that wants to read `req_7`, which gateway g held:

    0.00 s  h holds no req_7, and no result is stored
    0.00 s  h -> leader: LocateRequest(req_7, TAKE_OVER, gateway h)
            leader -> h: the record, held by gateway g at 10.0.0.4:7000
    0.01 s  h connects to g; g does not answer in 1 s
    1.06 s  h -> leader: the same with unreachable_gateway_id g; the leader suspects g
            leader -> h: pending; h sends the same again after 0.1 s, 0.2 s, 0.2 s ...
    2.30 s  g is dead: leader -> h: the record, held by gateway h, with its output so far
            h opens the request (`takeovers`) and the client reads it from its offset

After `attach_wait_s` without such an answer the client gets GatewayUnreachable, and may retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.bus import Bus, BusError, subjects
from headrace.clock import Clock
from headrace.errors import (
    BrokerUnavailable,
    GatewayUnreachable,
    RequestCancelled,
    RequestNotFound,
)
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.request_keys import candidate_models, public_id
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.queue.admission import GatewayAddress
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.queue.settlements import Settlements
from headrace_gateway.request.generation import Generation
from headrace_gateway.resume.location import Location
from headrace_gateway.resume.outputs import RemoteOutput
from headrace_gateway.resume.takeovers import ANSWER_S, Takeovers
from headrace_gateway.resume.waiting import EndWaiter
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.stored_output import StoredOutput

FIRST_BACKOFF_S, LONGEST_PAUSE_S = 0.05, 0.2


class RequestDirectory:
    """Requests of this gateway and of every other, by key."""

    def __init__(
        self,
        settings: GatewaySettings,
        address: GatewayAddress,
        bus: Bus,
        clock: Clock,
        requests: OpenRequests,
        settlements: Settlements,
        *,
        takeovers: Takeovers,
        models: Callable[[], Iterable[str] | None],
    ) -> None:
        """`models`: those whose leaders may have a request; None while they are not known yet."""
        self._settings, self._address = settings, address
        self._bus, self._clock = bus, clock
        self._requests, self._settlements, self._takeovers = requests, settlements, takeovers
        self._models = models
        self.waiter = EndWaiter(self, bus, clock)

    async def near(self, key: str) -> Location | None:
        """As `ports.Directory` has it."""
        if (open_request := self._requests.find(key)) is not None:
            return Location(open_request)
        if (result := self._settlements.find(key)) is not None:
            return Location(result=result)
        try:
            stored = await self._bus.get_result(key)
        except BusError as error:
            fact = f"request {public_id(key)} could not be located: {error}"
            raise BrokerUnavailable(fact, retry_after_s=DEFAULT_RETRY_S) from error
        return None if stored is None else Location(result=ResultRecord.FromString(stored))

    async def locate(
        self, key: str, verb: LocateRequest.Verb.ValueType = LocateRequest.VERB_FIND
    ) -> Location:
        """As `ports.Directory` has it."""
        message = LocateRequest(request_id=key, verb=verb)
        answer_s = self._settings.leader_answer_timeout_s
        open_request = self._requests.find(key)
        if open_request is None:
            return await self._search(message, None, timeout_s=answer_s)
        if verb != LocateRequest.VERB_CANCEL:
            leader = await self._query([open_request.record.model], message, timeout_s=answer_s)
            return Location(open_request, leader=leader)
        open_request.fail(RequestCancelled(f"request {public_id(key)} was cancelled"))
        try:
            # Its API relays the end and settles at once, unless its client reads slowly.
            async with asyncio.timeout(answer_s):
                await open_request.closed.wait()
        except TimeoutError:
            return Location(open_request)
        return await self.locate(key)

    async def wait(self, key: str, wait_s: float) -> Location:
        """As `ports.Directory` has it."""
        return await self.waiter.wait(key, wait_s)

    async def open(
        self, key: str, check: Callable[[Location], None], models: Iterable[str] | None = None
    ) -> Generation:
        """As `ports.Directory` has it."""
        message = LocateRequest(
            request_id=key,
            verb=LocateRequest.VERB_TAKE_OVER,
            gateway_id=self._address.gateway_id,
            delivery_address=self._address.delivery_address,
        )
        ends_s, pause_s = self._clock.monotonic_s() + self._settings.attach_wait_s, FIRST_BACKOFF_S
        while True:
            try:
                location = await self._search(message, models, timeout_s=ANSWER_S)
                check(location)
                return await self._output(location, message)
            except (GatewayUnreachable, BrokerUnavailable):
                if self._clock.monotonic_s() + pause_s >= ends_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _output(self, location: Location, message: LocateRequest) -> Generation:
        """Return the output for one reader; have the request taken over if it is assigned to us."""
        if location.open_request is not None:
            return location.open_request.reader()
        if location.result is not None:
            return StoredOutput(location.result)
        record = location.record
        if record.gateway_id == self._address.gateway_id:
            # Why once more: an earlier leader may have ended it, and what it has used is published.
            ended = await self.near(record.request_id)
            result = None if ended is None else ended.result
            if result is not None and result.request.arrival == record.arrival:
                self._settlements.settle_kept(record, result.outcome)
                return StoredOutput(result)
            return await self._takeovers.open(record)
        # For the next try, if this one fails.
        message.unreachable_gateway_id = record.gateway_id
        return await RemoteOutput.reach(
            record.delivery_address,
            message.request_id,
            tls=self._settings.tls,
            secret=self._settings.delivery_secret,
        )

    async def _search(
        self, message: LocateRequest, models: Iterable[str] | None, *, timeout_s: float
    ) -> Location:
        key = message.request_id
        if (near := await self.near(key)) is not None:
            return near
        known = self._models() if models is None else models
        if known is None:
            leader = LocateResponse(pending=True)
        else:
            candidates = candidate_models(public_id(key), known)
            leader = await self._query(candidates, message, timeout_s=timeout_s)
        if leader.found:
            return Location(leader=leader)
        # Why once more: it may have ended since, and its result is stored before its leader
        # forgets it.
        if (near := await self.near(key)) is not None:
            return near
        if leader.pending:
            raise GatewayUnreachable(
                f"no scheduler knows yet where request {public_id(key)} is",
                retry_after_s=DEFAULT_RETRY_S,
            )
        raise RequestNotFound(
            f"request {public_id(key)} not found: it is not running and no stored result exists",
            field="request_id",
        )

    async def _query(
        self, models: Iterable[str], message: LocateRequest, *, timeout_s: float
    ) -> LocateResponse:
        """Return the answer of the leader that knows the request, or else whether one may yet."""
        payload = message.SerializeToString()

        async def request(model: str) -> LocateResponse:
            try:
                answer = await self._bus.request(
                    subjects.locate(model), payload, timeout_s=timeout_s
                )
            except BusError:
                return LocateResponse(pending=True)
            return LocateResponse.FromString(answer)

        answers = await asyncio.gather(*map(request, models))
        pending = any(answer.pending for answer in answers)
        found = (answer for answer in answers if answer.found and not answer.pending)
        return next(found, LocateResponse(pending=pending))
