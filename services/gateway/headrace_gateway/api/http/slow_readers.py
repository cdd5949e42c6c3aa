"""Callers that do not read: what is written to them waits, and at last they are cut.

What waits for a reader has bounds of its own: token ids up to the request's bound, here one piece,
behind it the windows of gRPC and Envoy's buffers. Only the time had none, and an answer that no
client reads would keep its place among the open requests for ever.
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
"""Of an HTTP body in one write, so that whoever reads slowly is seen to read."""
_ABORT_S = 1.0
"""For the status of a call that is cut: it goes out behind what waits, whenever that is."""


class BoundedWrites:
    """A call's context whose `write` gives up on a reader; all else is the context's own.

    A write that was given up on still waits. The next one, which says why, waits behind it.
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
        """Returns when the transport has taken it.

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
        """Until it is taken, or has waited for `stall_s`."""
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
        """The timer of all writes: a new one began since it was set, or one has had its time."""
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
        """Nothing is written any more."""
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
    """Every answer that is streamed goes through `BoundedWrites`.

    The handler gets a SlowReader, like any error, and reports it to its client if that one
    reads on within another `stall_s`; else the call ends with the error as its status.
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
        pass  # it is on its way behind what waits
