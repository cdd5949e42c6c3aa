"""Handles for background requests: requests that run on without a client, known by their ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from headrace.client.answers import Answer, Choice, Usage
from headrace.client.calls.retries import may_succeed
from headrace.errors import CapacityError, DeadlineExceeded
from headrace.rpc.status import from_status
from headrace.v1.generation_pb2 import StreamGenerateResponse
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, Request

if TYPE_CHECKING:
    from headrace.client.clients import AsyncClient, Client

_WAIT_S = 30.0
"""For which one call waits for the end."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
NO_TIMEOUT = float("inf")


class BackgroundRequest:
    """A request that ends neither with this object nor with this process."""

    def __init__(self, client: Client, request_id: str) -> None:
        self._client, self.request_id = client, request_id

    def get(self) -> Request:
        """Return its state."""
        return self._client.get_request(self.request_id)

    def result(self, *, timeout_s: float = NO_TIMEOUT) -> Answer:
        """Wait for the end and return the whole answer.

        Raises:
            DeadlineExceeded: the request has not ended within `timeout_s`; it runs on.
            HeadraceError: what the request failed with, or that the mesh does not know it.
        """
        for wait_s, pause_s in _waits_s(timeout_s):
            time.sleep(pause_s)
            try:
                request = self._client.get_request(self.request_id, wait_s=wait_s)
            except CapacityError as error:  # an outage does not end the request
                if not may_succeed(error, repeatable=True):
                    raise
                continue
            if request.state == REQUEST_STATE_ENDED:
                return _answer(request)
        raise _not_ended(self.request_id, timeout_s)

    def stream(self, *, after: str = "") -> Iterator[StreamGenerateResponse]:
        """Stream as `Client.stream` does, from the beginning or from after a position.

        Closing the iterator leaves the request running.
        """
        return self._client.attach(self.request_id, after=after)

    def cancel(self) -> Request:
        """End the request; return its state then."""
        return self._client.cancel_request(self.request_id)


class AsyncBackgroundRequest:
    """`BackgroundRequest` of an `AsyncClient`."""

    def __init__(self, client: AsyncClient, request_id: str) -> None:
        self._client, self.request_id = client, request_id

    async def get(self) -> Request:
        return await self._client.get_request(self.request_id)

    async def result(self, *, timeout_s: float = NO_TIMEOUT) -> Answer:
        for wait_s, pause_s in _waits_s(timeout_s):
            await asyncio.sleep(pause_s)
            try:
                request = await self._client.get_request(self.request_id, wait_s=wait_s)
            except CapacityError as error:  # an outage does not end the request
                if not may_succeed(error, repeatable=True):
                    raise
                continue
            if request.state == REQUEST_STATE_ENDED:
                return _answer(request)
        raise _not_ended(self.request_id, timeout_s)

    def stream(self, *, after: str = "") -> AsyncIterator[StreamGenerateResponse]:
        return self._client.attach(self.request_id, after=after)

    async def cancel(self) -> Request:
        return await self._client.cancel_request(self.request_id)


def _waits_s(timeout_s: float) -> Iterator[tuple[float, float]]:
    """Yield how long each call waits for the end, and the pause before it, until `timeout_s` have
    passed.

    A gateway answers early where it stops, and with an error where none can: pauses, which double
    up to a bound, are for these. After a call that has waited, there is none.
    """
    end_s, pause_s = time.monotonic() + timeout_s, 0.0
    while True:
        begun_s = time.monotonic()
        yield min(_WAIT_S, max(0.0, end_s - begun_s - pause_s)), pause_s
        now_s = time.monotonic()
        if now_s >= end_s:
            return
        waited = now_s - begun_s - pause_s >= _LONGEST_PAUSE_S
        pause_s = 0.0 if waited else min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        pause_s = min(pause_s, end_s - now_s)


def _not_ended(request_id: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"request {request_id} has not ended within {timeout_s:g} s; it runs on"
    )


def _answer(request: Request) -> Answer:
    outcome = request.outcome
    if outcome.HasField("error"):
        raise from_status(outcome.error)
    return Answer(
        request_id=request.request_id,
        model=request.model,
        choices=tuple(map(Choice.of, outcome.choices)),
        usage=Usage.of(outcome.usage),
    )
