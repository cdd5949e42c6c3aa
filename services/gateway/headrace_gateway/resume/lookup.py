"""The status of a request, and its cancellation, whether it is open here, elsewhere, or ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.bus import RESULT_KEPT_S, Bus, BusError
from headrace.errors import (
    BrokerUnavailable,
    GatewayUnreachable,
    HeadraceError,
    RequestCancelled,
    RequestNotFound,
)
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1 import requests_pb2
from headrace_gateway.base.generated_ids import candidate_models
from headrace_gateway.base.request_keys import public_id
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.queue.settlements import Settlements, timestamp
from headrace_gateway.resume.leaders import ask_leaders
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests


class RequestLookup:
    """Looks in the own table, then in stored results, then asks the leader that the id names, or
    every model's leader at once if it names none."""

    def __init__(
        self,
        bus: Bus,
        requests: OpenRequests,
        settlements: Settlements,
        models: Callable[[], Iterable[str]],
        *,
        answer_s: float,
    ) -> None:
        self._bus = bus
        self._requests = requests
        self._settlements = settlements
        self._models = models
        self._answer_s = answer_s

    async def get(self, key: str) -> requests_pb2.Request:
        """
        Raises:
            RequestNotFound: no leader knows it, and no result is kept.
            GatewayUnreachable: some leader cannot be asked, or has just begun.
            BrokerUnavailable: it is not here, and no leader could be asked.
        """
        found, _ = await self.look(key)
        return found

    async def look(self, key: str) -> tuple[requests_pb2.Request, RequestRecord]:
        """The same, and what was asked for, without prompt and output.

        Raises:
            HeadraceError: as `get`.
        """
        if (open_request := self._requests.find(key)) is None:
            return await self._elsewhere(key)
        message = LocateRequest(request_id=key, verb=LocateRequest.VERB_FIND)
        leader = await self._ask([open_request.admitted.model], message)
        return _open(open_request, leader), open_request.admitted.record

    async def opened(self, key: str) -> requests_pb2.Request:
        """A request that has just been opened here, without asking a leader.

        Raises:
            HeadraceError: it has ended meanwhile, and what it came to cannot be read.
        """
        if (open_request := self._requests.find(key)) is not None:
            return _open(open_request, LocateResponse())
        found, _ = await self._elsewhere(key)
        return found

    async def cancel(self, key: str) -> requests_pb2.Request:
        """End it, if it has not ended; its reader gets RequestCancelled.

        Raises:
            RequestNotFound: no leader knows it, and no result is kept.
            GatewayUnreachable: some leader cannot be asked, or has just begun.
            BrokerUnavailable: it is not here, and no leader could be asked.
        """
        if (open_request := self._requests.find(key)) is None:
            found, _ = await self._elsewhere(key, LocateRequest.VERB_CANCEL)
            return found
        open_request.fail(RequestCancelled(f"request {public_id(key)} was cancelled"))
        try:
            # Its door relays the end and settles at once, unless its client reads slowly.
            async with asyncio.timeout(self._answer_s):
                await open_request.closed.wait()
        except TimeoutError:
            return _open(open_request, LocateResponse())
        found, _ = await self._elsewhere(key)
        return found

    async def _elsewhere(
        self,
        key: str,
        verb: LocateRequest.Verb.ValueType = LocateRequest.VERB_FIND,
    ) -> tuple[requests_pb2.Request, RequestRecord]:
        if (result := await self._result(key)) is not None:
            return _ended(result), result.request
        found = await self._ask(
            candidate_models(public_id(key), self._models()),
            LocateRequest(request_id=key, verb=verb),
        )
        if not found.found:
            # It may have ended since, and its result is stored before its leader forgets it.
            if (result := await self._result(key)) is not None:
                return _ended(result), result.request
            raise _not_found(key, found)
        request = requests_pb2.Request(request_id=public_id(key))
        _set_life(request, found.record)
        return _with_leader(request, found), found.record

    async def _result(self, key: str) -> ResultRecord | None:
        if (settlements := self._settlements.find(key)) is not None:
            return settlements
        try:
            payload = await self._bus.get_result(key)
        except BusError as error:
            raise BrokerUnavailable(
                f"results could not be read: {error}", retry_after_s=DEFAULT_RETRY_S
            ) from error
        return None if payload is None else ResultRecord.FromString(payload)

    async def _ask(self, models: Iterable[str], message: LocateRequest) -> LocateResponse:
        """Return the answer of the leader that knows the request, or else whether one may yet."""
        answers = await ask_leaders(self._bus, models, message, timeout_s=self._answer_s)
        known = [answer or LocateResponse(pending=True) for answer in answers]
        pending = any(answer.pending for answer in known)
        found = (answer for answer in known if answer.found)
        return next(found, LocateResponse(pending=pending))


def _not_found(key: str, answer: LocateResponse) -> HeadraceError:
    if answer.pending:
        return GatewayUnreachable(
            f"no scheduler knows yet whether request {public_id(key)} is running",
            retry_after_s=DEFAULT_RETRY_S,
        )
    return RequestNotFound(
        f"request {public_id(key)} not found: it is not running and no stored result exists",
        field="request_id",
    )


def _ended(record: ResultRecord) -> requests_pb2.Request:
    request = requests_pb2.Request(
        request_id=public_id(record.request_id),
        model=record.model,
        priority=record.priority,
        state=requests_pb2.REQUEST_STATE_ENDED,
        attempt=record.attempt,
        create_time=record.arrival,
        outcome=record.outcome,
        end_time=record.end_time if record.HasField("end_time") else None,
    )
    _set_life(request, record.request)
    return request


def _open(open_request: OpenRequest, leader: LocateResponse) -> requests_pb2.Request:
    """What we know of an open request, and what its leader adds."""
    admitted, attempt = open_request.admitted, open_request.output.newest_attempt
    state = requests_pb2.REQUEST_STATE_RUNNING if attempt else requests_pb2.REQUEST_STATE_WAITING
    known = requests_pb2.Request(
        request_id=public_id(admitted.request_id),
        model=admitted.model,
        priority=admitted.priority,
        state=state,
        attempt=attempt,
        create_time=timestamp(admitted.arrival_s),
    )
    _set_life(known, admitted.record)
    return _with_leader(known, leader) if leader.found else known


def _set_life(request: requests_pb2.Request, record: RequestRecord) -> None:
    """Whether it needs readers, and until when it is known."""
    request.detached = record.detached
    end = request.end_time if request.HasField("end_time") else record.deadline
    kept_ns = record.result_ttl.ToNanoseconds() or int(RESULT_KEPT_S * 1e9)
    if end.ToNanoseconds():
        request.expire_time.FromNanoseconds(end.ToNanoseconds() + kept_ns)


def _with_leader(request: requests_pb2.Request, leader: LocateResponse) -> requests_pb2.Request:
    record = leader.record
    request.model, request.priority = record.model, record.priority
    request.attempt = max(request.attempt, record.attempt)
    request.worker = leader.worker_name
    request.create_time.CopyFrom(record.arrival)
    request.state = (
        requests_pb2.REQUEST_STATE_RUNNING if leader.running else requests_pb2.REQUEST_STATE_WAITING
    )
    return request
