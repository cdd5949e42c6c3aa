"""One request, wherever it is: open here, ended, or in the hands of some leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.bus import Bus, BusError, subjects
from headrace.errors import BrokerUnavailable, RequestCancelled, RequestNotFound
from headrace.internal.v1.reports_pb2 import FindRequest, FindResponse, ResultRecord
from headrace.v1 import requests_pb2
from headrace_gateway.lanes import DEFAULT_RETRY_S
from headrace_gateway.open_requests import OpenRequests
from headrace_gateway.outlet import Outlet
from headrace_gateway.settling import Settling, timestamp


class Whereabouts:
    """Asks near before far: own table, results, then every model's leader at once."""

    def __init__(
        self,
        bus: Bus,
        requests: OpenRequests,
        settling: Settling,
        models: Callable[[], Iterable[str]],
        *,
        answer_s: float,
    ) -> None:
        self._bus = bus
        self._requests = requests
        self._settling = settling
        self._models = models
        self._answer_s = answer_s

    async def get(self, request_id: str) -> requests_pb2.Request:
        """
        Raises:
            RequestNotFound: no leader knows it, and no result is kept.
            BrokerUnavailable: it is not here, and nobody else could be asked.
        """
        if (outlet := self._requests.find(request_id)) is None:
            return await self._elsewhere(request_id, cancel=False)
        leader = await self._ask([outlet.admitted.model], request_id, cancel=False)
        return _open(outlet, leader)

    async def cancel(self, request_id: str) -> requests_pb2.Request:
        """End it, if it has not ended; its reader gets RequestCancelled.

        Raises:
            RequestNotFound: no leader knows it, and no result is kept.
            BrokerUnavailable: it is not here, and nobody else could be asked.
        """
        if (outlet := self._requests.find(request_id)) is None:
            return await self._elsewhere(request_id, cancel=True)
        outlet.fail(RequestCancelled(f"request {request_id} was cancelled"))
        try:
            # Its door relays the end and settles at once, unless its client reads slowly.
            async with asyncio.timeout(self._answer_s):
                await outlet.closed.wait()
        except TimeoutError:
            return _open(outlet, FindResponse())
        return await self._elsewhere(request_id, cancel=False)

    async def _elsewhere(self, request_id: str, *, cancel: bool) -> requests_pb2.Request:
        if (record := self._settling.find(request_id)) is not None:
            return _ended(record)
        if (stored := await self._stored(request_id)) is not None:
            return _ended(stored)
        found = await self._ask(self._models(), request_id, cancel=cancel)
        if not found.found:
            raise RequestNotFound(
                f"no request {request_id} is open or lately ended", field="request_id"
            )
        return _with_leader(requests_pb2.Request(request_id=request_id), found)

    async def _stored(self, request_id: str) -> ResultRecord | None:
        try:
            payload = await self._bus.get_result(request_id)
        except BusError as error:
            raise BrokerUnavailable(
                f"results could not be read: {error}", retry_after_s=DEFAULT_RETRY_S
            ) from error
        return None if payload is None else ResultRecord.FromString(payload)

    async def _ask(self, models: Iterable[str], request_id: str, *, cancel: bool) -> FindResponse:
        """What the leader that knows it says; of none, an empty answer."""
        question = FindRequest(request_id=request_id, cancel=cancel).SerializeToString()
        answers = await asyncio.gather(*(self._ask_one(model, question) for model in models))
        return next((answer for answer in answers if answer.found), FindResponse())

    async def _ask_one(self, model: str, question: bytes) -> FindResponse:
        try:
            answer = await self._bus.request(
                subjects.find(model), question, timeout_s=self._answer_s
            )
        except BusError:  # no leader now: it cannot be told from one that does not know it
            return FindResponse()
        return FindResponse.FromString(answer)


def _ended(record: ResultRecord) -> requests_pb2.Request:
    return requests_pb2.Request(
        request_id=record.request_id,
        model=record.model,
        priority=record.priority,
        state=requests_pb2.REQUEST_STATE_ENDED,
        attempt=record.attempt,
        create_time=record.arrival,
        outcome=record.outcome,
    )


def _open(outlet: Outlet, leader: FindResponse) -> requests_pb2.Request:
    """What we know of an open request, and what its leader adds."""
    admitted, attempt = outlet.admitted, outlet.relay.newest
    state = requests_pb2.REQUEST_STATE_RUNNING if attempt else requests_pb2.REQUEST_STATE_WAITING
    known = requests_pb2.Request(
        request_id=admitted.request_id,
        model=admitted.model,
        priority=admitted.priority,
        state=state,
        attempt=attempt,
        create_time=timestamp(admitted.arrival_s),
    )
    return _with_leader(known, leader) if leader.found else known


def _with_leader(request: requests_pb2.Request, leader: FindResponse) -> requests_pb2.Request:
    request.model = leader.model
    request.priority = leader.priority
    request.attempt = max(request.attempt, leader.attempt)
    request.worker = leader.worker_name
    request.create_time.CopyFrom(leader.arrival)
    request.state = (
        requests_pb2.REQUEST_STATE_RUNNING if leader.running else requests_pb2.REQUEST_STATE_WAITING
    )
    return request
