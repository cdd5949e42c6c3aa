"""Handles for background requests: requests that run on without a client, known by their ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.errors import CapacityError, DeadlineExceeded
from headrace.rpc.status import from_status
from headrace.v1.generation_pb2 import GenerateResponse, StreamGenerateResponse
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, Request

if TYPE_CHECKING:
    from headrace.client.clients import AsyncClient, Client

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
NO_TIMEOUT = float("inf")


class BackgroundRequest:
    """A request that ends neither with this object nor with this process."""

    def __init__(self, client: Client, request_id: str) -> None:
        self._client, self.request_id = client, request_id

    def get(self) -> Request:
        """Return its state."""
        return self._client.get_request(self.request_id)

    def result(self, *, timeout_s: float = NO_TIMEOUT) -> GenerateResponse:
        """Wait for the end and return the whole answer.

        Raises:
            DeadlineExceeded: the request has not ended within `timeout_s`; it runs on.
            HeadraceError: what the request failed with, or that the mesh does not know it.
        """
        pauses_s = _pauses_s(self.request_id, timeout_s)
        while True:
            with suppress(CapacityError):  # an outage does not end the request
                if (request := self.get()).state == REQUEST_STATE_ENDED:
                    break
            time.sleep(next(pauses_s))
        return _answer(request)

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

    async def result(self, *, timeout_s: float = NO_TIMEOUT) -> GenerateResponse:
        pauses_s = _pauses_s(self.request_id, timeout_s)
        while True:
            with suppress(CapacityError):  # an outage does not end the request
                if (request := await self.get()).state == REQUEST_STATE_ENDED:
                    break
            await asyncio.sleep(next(pauses_s))
        return _answer(request)

    def stream(self, *, after: str = "") -> AsyncIterator[StreamGenerateResponse]:
        return self._client.attach(self.request_id, after=after)

    async def cancel(self) -> Request:
        return await self._client.cancel_request(self.request_id)


def _pauses_s(request_id: str, timeout_s: float) -> Iterator[float]:
    """Yield the pauses between polls, which double up to a bound.

    Raises:
        DeadlineExceeded: `timeout_s` have passed since the first pause.
    """
    end_s, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while (left_s := end_s - time.monotonic()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise DeadlineExceeded(f"request {request_id} has not ended within {timeout_s:g} s; it runs on")


def _answer(request: Request) -> GenerateResponse:
    outcome = request.outcome
    if outcome.HasField("error"):
        raise from_status(outcome.error)
    return GenerateResponse(
        request_id=request.request_id,
        model=request.model,
        choices=outcome.choices,
        usage=outcome.usage,
    )
