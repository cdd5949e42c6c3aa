"""Ends the streams of clients that have stopped reading.

What waits for a client has bounds: token ids up to the request's bound, one piece here, and the
windows of gRPC and Envoy's buffers behind it. This bounds its time, too: otherwise an answer that
is not read would stay among the open requests for ever.

For a `stall_s` of 30 and a client that stops reading a stream while its window is full:

    t = 0 s    `write(a)` starts a task that writes `a`, and waits for it; the timer is set for 30 s
    t = 10 s   the client reads once: `a` is taken, and `write(a)` returns
    t = 11 s   `write(b)` waits; the client reads nothing more
    t = 30 s   the timer fires: `b` has waited for 19 s only, so the timer is set for 11 s more
    t = 41 s   it fires again: `write(b)` raises SlowReader, and the handler wants to report that
    t = 41 s   its `write(error)` waits behind `b`, for another 30 s
    t = 71 s   `write(error)` raises SlowReader: the call ends with the error as its status

If the client reads again at 60 s, it gets `b` and the error, which end the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from headrace.errors import SlowReader
from headrace.rpc.status import abort
from headrace_gateway.base import metrics
from headrace_gateway.base.calls import Context

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""The size of an HTTP body in one write: a client that reads slowly takes a piece in time."""
_ABORT_S = 1.0
"""The time to send the status of a call that is ended; it may stay behind what waits."""


class BoundedWrites:
    """A call's context whose `write` has a timeout; all else is the context's own.

    A write that timed out still waits. The next one, with the error, waits behind it.
    """

    def __init__(self, context: Context, stall_s: float) -> None:
        self._context = context
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_stalled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Write a message; return when the transport has taken it.

        Raises:
            SlowReader: it took nothing for `stall_s`.
        """
        for piece in _pieces(message):
            await self._flush()
            self._writing = self._loop.create_task(self._context.write(piece))
            await self._flush()

    async def _flush(self) -> None:
        if self._writing is None:
            return
        if not self._writing.done():
            await self._wait(self._writing)
        if not self._writing.done():
            self._count()
            raise SlowReader(f"nothing of the answer was read for {self._stall_s:g} s")
        taken, self._writing = self._writing, None
        taken.result()

    async def _wait(self, writing: asyncio.Task[None]) -> None:
        """Wait until the message is taken, or has waited for `stall_s`."""
        # Why not asyncio.wait: its timer for every token costs more than the token's write.
        self._flushed, self._began_s = self._loop.create_future(), self._loop.time()
        writing.add_done_callback(self._wake)
        if self._timer is None:
            self._timer = self._loop.call_later(self._stall_s, self._check_timer)
        try:
            await self._flushed
        finally:
            self._flushed = None
            writing.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _check_timer(self) -> None:
        """Wake a write that has waited for `stall_s`; set the timer again for one that has not."""
        self._timer = None
        if self._flushed is None:
            return
        left_s = self._began_s + self._stall_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_timer)
        else:
            self._wake()

    def _count(self) -> None:
        if not self._is_stalled:
            self._is_stalled = True
            metrics.slow_readers_total.inc()
            log.warning("reader.cut", extra={"stalled_s": self._stall_s})

    def close(self) -> None:
        """Cancel what still waits to be written."""
        for held in (self._writing, self._timer):
            if held is not None:
                held.cancel()


def _pieces(message: Any) -> Iterator[Any]:
    if not isinstance(message, HttpBody) or len(message.data) <= PIECE_BYTES:
        yield message
        return
    for start in range(0, len(message.data), PIECE_BYTES):
        # The first names the type of the whole body.
        kind = message.content_type if start == 0 else ""
        yield HttpBody(content_type=kind, data=message.data[start : start + PIECE_BYTES])


class SlowReaderInterceptor(grpc.aio.ServerInterceptor):
    """Gives the handlers of streams a `BoundedWrites` as their context.

    A handler gets a SlowReader like any error, and reports it to a client that reads again within
    another `stall_s`; otherwise the call ends with the error as its status.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        if found is None or found.unary_stream is None:
            return found
        return grpc.unary_stream_rpc_method_handler(
            self._bounded(found.unary_stream),
            request_deserializer=found.request_deserializer,
            response_serializer=found.response_serializer,
        )

    def _bounded(
        self, serve: Callable[[Any, Any], Awaitable[None]]
    ) -> Callable[[Any, Context], Awaitable[None]]:
        async def bounded(request: Any, context: Context) -> None:
            writes = BoundedWrites(context, self._stall_s)
            try:
                await serve(request, writes)
            except SlowReader as error:
                await _abort_slow_reader(context, error)
            finally:
                writes.close()

        return bounded


async def _abort_slow_reader(context: Context, error: SlowReader) -> None:
    try:
        async with asyncio.timeout(_ABORT_S):
            await abort(context, error)
    except TimeoutError:
        pass  # it is sent after what waits
