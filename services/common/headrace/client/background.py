"""Detached requests as `headrace.client` has them: by their names, whoever has begun them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from headrace.errors import CapacityError, DeadlinePassed
from headrace.rpc.status import from_status
from headrace.v1.generation_pb2 import GenerateResponse, StreamGenerateResponse
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, Request

FIRST_BACKOFF_S, LONGEST_PAUSE_S = 0.05, 1.0
NEVER = float("inf")


class Requests(Protocol):
    """What a handle asks of its client; raises HeadraceError."""

    def get_request(self, request_id: str) -> Request: ...

    def cancel_request(self, request_id: str) -> Request: ...

    def attach(
        self, request_id: str, *, after: str = "", reattach: bool = True
    ) -> Iterator[StreamGenerateResponse]: ...


class AsyncRequests(Protocol):
    """The same for an event loop."""

    async def get_request(self, request_id: str) -> Request: ...

    async def cancel_request(self, request_id: str) -> Request: ...

    def attach(
        self, request_id: str, *, after: str = "", reattach: bool = True
    ) -> AsyncIterator[StreamGenerateResponse]: ...


class Detached:
    """A request that goes on without us: it ends neither with this object nor with our process."""

    def __init__(self, requests: Requests, request_id: str) -> None:
        self._requests, self.request_id = requests, request_id

    def get(self) -> Request:
        """How it stands."""
        return self._requests.get_request(self.request_id)

    def result(self, *, timeout_s: float = NEVER) -> GenerateResponse:
        """The whole answer, once it has ended.

        Raises:
            DeadlinePassed: it has not within `timeout_s`, and goes on.
            HeadraceError: what it ended with, or that nothing is known of it (any more).
        """
        waiting = _Waiting(self.request_id, timeout_s)
        while not waiting.is_over:
            with waiting.through_outages():
                waiting.see(self.get())
            time.sleep(waiting.pause_s())
        return waiting.answer()

    def stream(self, *, after: str = "") -> Iterator[StreamGenerateResponse]:
        """As `Client.stream`, from its beginning or from behind a position. Closing the iterator
        ends no more than this reading."""
        return self._requests.attach(self.request_id, after=after)

    def cancel(self) -> Request:
        """End it; how it stands then."""
        return self._requests.cancel_request(self.request_id)


class AsyncDetached:
    """`Detached` for one event loop."""

    def __init__(self, requests: AsyncRequests, request_id: str) -> None:
        self._requests, self.request_id = requests, request_id

    async def get(self) -> Request:
        return await self._requests.get_request(self.request_id)

    async def result(self, *, timeout_s: float = NEVER) -> GenerateResponse:
        """As `Detached.result`."""
        waiting = _Waiting(self.request_id, timeout_s)
        while not waiting.is_over:
            with waiting.through_outages():
                waiting.see(await self.get())
            await asyncio.sleep(waiting.pause_s())
        return waiting.answer()

    def stream(self, *, after: str = "") -> AsyncIterator[StreamGenerateResponse]:
        """As `Detached.stream`."""
        return self._requests.attach(self.request_id, after=after)

    async def cancel(self) -> Request:
        return await self._requests.cancel_request(self.request_id)


class _Waiting:
    """For the end of a request, by looking again after growing pauses."""

    def __init__(self, request_id: str, timeout_s: float) -> None:
        self._request_id, self._timeout_s = request_id, timeout_s
        self._ends_s = time.monotonic() + timeout_s
        self._pause_s = FIRST_BACKOFF_S
        self._ended: Request | None = None

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    @contextmanager
    def through_outages(self) -> Iterator[None]:
        """That nobody can say how it stands now is no end."""
        with suppress(CapacityError):
            yield

    def see(self, request: Request) -> None:
        if request.state == REQUEST_STATE_ENDED:
            self._ended = request

    def pause_s(self) -> float:
        if self.is_over:
            return 0.0
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            fact = f"request {self._request_id} has not ended within {self._timeout_s:g} s"
            raise DeadlinePassed(f"{fact}; it goes on")
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return min(pause_s, left_s)

    def answer(self) -> GenerateResponse:
        assert self._ended is not None
        outcome = self._ended.outcome
        if outcome.HasField("error"):
            raise from_status(outcome.error)
        return GenerateResponse(
            request_id=self._request_id,
            model=self._ended.model,
            choices=outcome.choices,
            usage=outcome.usage,
        )
