"""Perform what scripts say, on the calling thread or on an event loop; they differ in `await`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from headrace.client.calls.endpoint import Endpoint, EventParser, error_of
from headrace.client.calls.scripts import (
    END,
    Call,
    Close,
    Emit,
    GrpcCall,
    Next,
    Open,
    Read,
    RestCall,
    Run,
    Script,
    Send,
    Sleep,
)
from headrace.rpc.addresses import InvalidAddress, grpc_target
from headrace.rpc.channels import CLIENT_PINGS, aio_channel, blocking_channel

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class BlockingLink:
    """Connections of a blocking client; threads may share it.

    Raises:
        InvalidAddress: the URL is not an address.
        MeshUnreachable: the authorities cannot be read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        target, security = grpc_target(endpoint.url), endpoint.security()
        self.endpoint = endpoint
        self.channel: grpc.Channel = blocking_channel(target, pings=CLIENT_PINGS, security=security)
        self._http: httpx.Client | None = None
        self.is_closed = False

    def run(self, script: Script[T]) -> T:
        """Return what a script that emits nothing returns."""
        run = Run(script)
        for _ in self._performed(run):
            raise AssertionError("a call emitted an item")
        return run.result

    def iterate(self, script: Script[None]) -> Iterator[Any]:
        """Yield what a script emits. Closing the iterator closes its streams."""
        return self._performed(Run(script))

    def _performed(self, run: Run[Any]) -> Iterator[Any]:
        streams: list[Any] = []
        try:
            while (effect := run.next_effect()) is not None:
                match effect:
                    case Emit(item):
                        yield item
                    case Sleep(seconds):
                        time.sleep(seconds)
                    case Close(stream):
                        stream.close()
                    case Next(stream):
                        with run.performing(effect):
                            run.reply = stream.next()
                    case Send(call):
                        with run.performing(effect):
                            run.reply = self._send(call)
                    case Open(call):
                        with run.performing(effect):
                            streams.append(_BlockingStream(self, call))
                            streams[-1].open()
                            run.reply = streams[-1]
        finally:
            for stream in streams:
                stream.close()

    def _send(self, call: Call) -> Any:
        if self.is_closed:
            raise self.endpoint.closed_error
        if isinstance(call, GrpcCall):
            with self.endpoint.grpc_errors():
                return call.method(
                    call.request, timeout=call.timeout_s, metadata=self.endpoint.metadata
                )
        http = self.http
        with self.endpoint.http_errors(), self.endpoint.http_request(http, call) as request:
            response = http.send(request)
        return _answer(response, call)

    @property
    def http(self) -> httpx.Client:
        if self._http is None:
            import httpx

            self._http = httpx.Client(**self.endpoint.http_options())
        return self._http

    def close(self) -> None:
        self.is_closed = True
        self.channel.close()
        if self._http is not None:
            self._http.close()


class _BlockingStream:
    def __init__(self, link: BlockingLink, call: Call) -> None:
        self._link, self._call = link, call
        self._opened: Any = None
        self._items: Iterator[Any] = iter(())

    def open(self) -> None:
        endpoint, call = self._link.endpoint, self._call
        if self._link.is_closed:
            raise endpoint.closed_error
        if isinstance(call, GrpcCall):
            self._opened = call.method(
                call.request, timeout=call.timeout_s, metadata=endpoint.metadata
            )
            self._items = self._opened
            return
        with endpoint.http_errors():
            http = self._link.http
            with endpoint.http_request(http, call) as request:
                response = http.send(request, stream=True)
            self._opened = response
            if not response.is_success:
                response.read()
        if not response.is_success:
            raise error_of(response)
        self._items = _rest_items(response, call)

    def next(self) -> Any:
        with self._link.endpoint.errors(self._call):
            return next(self._items, END)

    def close(self) -> None:
        if isinstance(self._call, GrpcCall) and self._opened is not None:
            self._opened.cancel()
        elif self._opened is not None:
            self._opened.close()


def _rest_items(response: httpx.Response, call: RestCall) -> Iterator[Any]:
    parser = EventParser()
    for data in response.iter_bytes():
        yield from _items(parser.lines(data), call)
    yield from _items(parser.end(), call)


class AsyncLink:
    """Connections of a client for one event loop, as `BlockingLink`."""

    def __init__(self, endpoint: Endpoint) -> None:
        target, security = grpc_target(endpoint.url), endpoint.security()
        self.endpoint = endpoint
        self.channel: grpc.aio.Channel = aio_channel(target, pings=CLIENT_PINGS, security=security)
        self._http: httpx.AsyncClient | None = None
        self.is_closed = False

    async def run(self, script: Script[T]) -> T:
        run = Run(script)
        async for _ in self._performed(run):
            raise AssertionError("a call emitted an item")
        return run.result

    def iterate(self, script: Script[None]) -> AsyncIterator[Any]:
        return self._performed(Run(script))

    async def _performed(self, run: Run[Any]) -> AsyncIterator[Any]:
        streams: list[Any] = []
        try:
            while (effect := run.next_effect()) is not None:
                match effect:
                    case Emit(item):
                        yield item
                    case Sleep(seconds):
                        await asyncio.sleep(seconds)
                    case Close(stream):
                        await stream.close()
                    case Next(stream):
                        with run.performing(effect):
                            run.reply = await stream.next()
                    case Send(call):
                        with run.performing(effect):
                            run.reply = await self._send(call)
                    case Open(call):
                        with run.performing(effect):
                            streams.append(_AsyncStream(self, call))
                            await streams[-1].open()
                            run.reply = streams[-1]
        finally:
            for stream in streams:
                await stream.close()

    async def _send(self, call: Call) -> Any:
        if self.is_closed:
            raise self.endpoint.closed_error
        if isinstance(call, GrpcCall):
            with self.endpoint.grpc_errors():
                return await call.method(
                    call.request, timeout=call.timeout_s, metadata=self.endpoint.metadata
                )
        http = self.http
        with self.endpoint.http_errors(), self.endpoint.http_request(http, call) as request:
            response = await http.send(request)
        return _answer(response, call)

    @property
    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(**self.endpoint.http_options())
        return self._http

    async def close(self) -> None:
        self.is_closed = True
        await self.channel.close()
        if self._http is not None:
            await self._http.aclose()


class _AsyncStream:
    def __init__(self, link: AsyncLink, call: Call) -> None:
        self._link, self._call = link, call
        self._opened: Any = None
        self._items: AsyncIterator[Any]

    async def open(self) -> None:
        endpoint, call = self._link.endpoint, self._call
        if self._link.is_closed:
            raise endpoint.closed_error
        if isinstance(call, GrpcCall):
            self._opened = call.method(
                call.request, timeout=call.timeout_s, metadata=endpoint.metadata
            )
            self._items = aiter(self._opened)
            return
        with endpoint.http_errors():
            http = self._link.http
            with endpoint.http_request(http, call) as request:
                response = await http.send(request, stream=True)
            self._opened = response
            if not response.is_success:
                await response.aread()
        if not response.is_success:
            raise error_of(response)
        self._items = _async_rest_items(response, call)

    async def next(self) -> Any:
        with self._link.endpoint.errors(self._call):
            return await anext(self._items, END)

    async def close(self) -> None:
        if isinstance(self._call, GrpcCall) and self._opened is not None:
            self._opened.cancel()
        elif self._opened is not None:
            await self._opened.aclose()


async def _async_rest_items(response: httpx.Response, call: RestCall) -> AsyncIterator[Any]:
    parser = EventParser()
    async for data in response.aiter_bytes():
        for item in _items(parser.lines(data), call):
            yield item
    for item in _items(parser.end(), call):
        yield item


def _answer(response: httpx.Response, call: RestCall) -> Any:
    if not response.is_success:
        raise error_of(response)
    return response.content if call.read is Read.BYTES else response.json()


def _items(lines: list[bytes], call: RestCall) -> Iterator[Any]:
    for line in lines:
        if call.read is Read.LINES:
            yield line
        elif line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


__all__ = ["AsyncLink", "BlockingLink", "InvalidAddress"]
