"""`Client` and `AsyncClient`, which differ only in `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, Unpack, cast

import grpc
from google.protobuf.message import Message

from headrace.client import messages
from headrace.client.background import AsyncBackgroundRequest, BackgroundRequest
from headrace.client.messages import Prompt
from headrace.client.resume import RESUMABLE_ERRORS, RESUME_PAUSE_S, ResumableStream
from headrace.client.sampling import Sampling
from headrace.client.unreachable import unreachable
from headrace.errors import CapacityError, Code
from headrace.rpc.addresses import InvalidAddress, grpc_target
from headrace.rpc.channels import CLIENT_PINGS, aio_channel, blocking_channel
from headrace.rpc.status import from_rpc_error
from headrace.rpc.tls import ChannelSecurity, public_security
from headrace.v1.fleet_pb2 import Lane, ListLanesRequest, ListWorkersRequest, Worker
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.generation_pb2 import (
    GenerateResponse,
    StreamGenerateResponse,
)
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from headrace.v1.models_pb2 import ListModelsRequest, Model
from headrace.v1.models_pb2_grpc import ModelServiceStub
from headrace.v1.own_key_pb2 import GetOwnKeyRequest, OwnKey
from headrace.v1.own_key_pb2_grpc import OwnKeyServiceStub
from headrace.v1.requests_pb2 import (
    AttachRequestRequest,
    CancelRequestRequest,
    Request,
)
from headrace.v1.requests_pb2_grpc import RequestServiceStub

Events = Iterator[StreamGenerateResponse]
AsyncEvents = AsyncIterator[StreamGenerateResponse]
EventsT = TypeVar("EventsT", Events, AsyncEvents)
AnswerT = TypeVar("AnswerT")

_TIMEOUT_S = 30.0
"""Of calls that do not wait for a model's output."""


class MeshUnreachable(CapacityError):
    """Nothing that speaks gRPC answers at the URL."""

    code = Code.UNAVAILABLE


class _BaseClient(Generic[EventsT]):
    """The connection and the streams of a client; `EventsT` is how a stream is iterated."""

    def __init__(
        self,
        url: str,
        open_channel: Callable[..., Any],
        *,
        api_key: str | None,
        ca_file: Path | str | None,
        server_name: str,
    ) -> None:
        try:
            security = _security(url, ca_file, server_name)
            self._channel = open_channel(grpc_target(url), pings=CLIENT_PINGS, security=security)
        except InvalidAddress as error:
            raise MeshUnreachable(str(error)) from error
        self.url = url
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        # Typed as for threads; on a channel for the event loop, calls return awaitables.
        channel: grpc.Channel = self._channel
        self._generation = GenerationServiceStub(channel)
        self._models = ModelServiceStub(channel)
        self._requests = RequestServiceStub(channel)
        self._fleet = FleetServiceStub(channel)
        self._own_key = OwnKeyServiceStub(channel)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str,
        seed: int | None = None,
        reattach: bool = True,
        **sampling: Unpack[Sampling],
    ) -> EventsT:
        """Yield `started`, deltas and `finish`. Closing the iterator cancels the request.

        With `reattach`, a stream that breaks off is resumed at its position through another
        gateway; without, it raises.
        """
        request = messages.make_request(prompt, model=model, seed=seed, **sampling)
        return self._read(
            lambda: self._generation.StreamGenerate(request, metadata=self._metadata), reattach
        )

    def attach(self, request_id: str, *, after: str = "", reattach: bool = True) -> EventsT:
        """Yield the events of a request that was sent before, from after a position.

        Closing the iterator cancels the request unless it is a background request or has another
        reader.
        """
        request = AttachRequestRequest(request_id=request_id, after=after)
        return self._read(
            lambda: self._requests.AttachRequest(request, metadata=self._metadata), reattach, after
        )

    def _read(self, start: Callable[[], Any], reattach: bool, after: str = "") -> EventsT:
        raise NotImplementedError


class Client(_BaseClient[Events]):
    """Blocking client; threads may share it. Use it as a context manager, or `close` it.

    Args:
        url: of the mesh, `http://host:port` or `https://host:port`.
        api_key: of every call; a mesh that requires no keys ignores it.
        ca_file: certificates of the authorities to trust, in PEM. Default: those of the web.
        server_name: what the mesh's certificate must have. Default: the host of the URL.

    Raises:
        MeshUnreachable: the URL is not an address, or there is no such file.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        server_name: str = "",
    ) -> None:
        super().__init__(
            url, blocking_channel, api_key=api_key, ca_file=ca_file, server_name=server_name
        )

    def generate(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> GenerateResponse:
        """Return the whole answer."""
        request = messages.make_request(prompt, model=model, seed=seed, **sampling)
        return self._call(self._generation.Generate, request, timeout_s=None)

    def _read(self, start: Callable[[], Any], reattach: bool, after: str = "") -> Events:
        with _translated(self.url):
            stream, call = ResumableStream(reattach, after), start()
            while True:
                try:
                    for event in call:
                        if stream.is_new(event):
                            yield event
                    return
                except (grpc.RpcError, *RESUMABLE_ERRORS) as error:
                    rest = stream.resume_after(error)
                finally:
                    call.cancel()
                time.sleep(RESUME_PAUSE_S)
                call = self._requests.AttachRequest(rest, metadata=self._metadata)

    def generate_in_background(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> BackgroundRequest:
        """Start a request that runs on without this client; return once it is stored."""
        request = messages.background_request(prompt, model, seed, sampling)
        created = self._call(self._requests.CreateRequest, request)
        return self.background_request(created.request_id)

    def background_request(self, request_id: str) -> BackgroundRequest:
        """Return a handle for a request that was started before. Sends nothing."""
        return BackgroundRequest(self, request_id)

    def get_request(self, request_id: str, *, wait_s: float = 0.0) -> Request:
        """Return the state of a request, once it has ended or after `wait_s`, at most 60."""
        request = messages.get_request(request_id, wait_s)
        return self._call(self._requests.GetRequest, request, _TIMEOUT_S + wait_s)

    def cancel_request(self, request_id: str) -> Request:
        """End a request; return its state then."""
        return self._call(self._requests.CancelRequest, CancelRequestRequest(request_id=request_id))

    def models(self) -> list[Model]:
        """Return the configured models."""
        return list(self._call(self._models.ListModels, ListModelsRequest()).models)

    def own_key(self) -> OwnKey:
        """Return what this client's key may do, and what is left of its limits."""
        return self._call(self._own_key.GetOwnKey, GetOwnKeyRequest())

    def _call(
        self, method: Callable[..., AnswerT], request: Message, timeout_s: float | None = _TIMEOUT_S
    ) -> AnswerT:
        with _translated(self.url):
            return method(request, timeout=timeout_s, metadata=self._metadata)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_BaseClient[AsyncEvents]):
    """Client for one event loop. Use it as an asynchronous context manager, or `close` it.

    The methods of `Client` are here under the same names, with the same arguments and errors.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        server_name: str = "",
    ) -> None:
        super().__init__(
            url, aio_channel, api_key=api_key, ca_file=ca_file, server_name=server_name
        )

    async def generate(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> GenerateResponse:
        request = messages.make_request(prompt, model=model, seed=seed, **sampling)
        return await self._call(self._generation.Generate, request, timeout_s=None)

    async def _read(self, start: Callable[[], Any], reattach: bool, after: str = "") -> AsyncEvents:
        with _translated(self.url):
            stream, call = ResumableStream(reattach, after), start()
            while True:
                try:
                    async for event in call:
                        if stream.is_new(event):
                            yield event
                    return
                except (grpc.RpcError, *RESUMABLE_ERRORS) as error:
                    rest = stream.resume_after(error)
                finally:
                    call.cancel()
                await asyncio.sleep(RESUME_PAUSE_S)
                call = self._requests.AttachRequest(rest, metadata=self._metadata)

    async def generate_in_background(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> AsyncBackgroundRequest:
        request = messages.background_request(prompt, model, seed, sampling)
        created = await self._call(self._requests.CreateRequest, request)
        return self.background_request(created.request_id)

    def background_request(self, request_id: str) -> AsyncBackgroundRequest:
        return AsyncBackgroundRequest(self, request_id)

    async def get_request(self, request_id: str, *, wait_s: float = 0.0) -> Request:
        request = messages.get_request(request_id, wait_s)
        return await self._call(self._requests.GetRequest, request, _TIMEOUT_S + wait_s)

    async def cancel_request(self, request_id: str) -> Request:
        request = CancelRequestRequest(request_id=request_id)
        return await self._call(self._requests.CancelRequest, request)

    async def models(self) -> list[Model]:
        found = await self._call(self._models.ListModels, ListModelsRequest())
        return list(found.models)

    async def own_key(self) -> OwnKey:
        return await self._call(self._own_key.GetOwnKey, GetOwnKeyRequest())

    async def workers(self) -> list[Worker]:
        """Return the workers that report."""
        found = await self._call(self._fleet.ListWorkers, ListWorkersRequest())
        return list(found.workers)

    async def lanes(self) -> list[Lane]:
        """Return the queues, one lane for each model and priority."""
        found = await self._call(self._fleet.ListLanes, ListLanesRequest())
        return list(found.lanes)

    async def _call(
        self, method: Callable[..., AnswerT], request: Message, timeout_s: float | None = _TIMEOUT_S
    ) -> AnswerT:
        with _translated(self.url):
            return await cast(
                Awaitable[AnswerT], method(request, timeout=timeout_s, metadata=self._metadata)
            )

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _security(url: str, ca_file: Path | str | None, server_name: str) -> ChannelSecurity | None:
    ca = None if ca_file is None else Path(ca_file)
    try:
        return public_security(url, {"ca_file": ca, "server_name": server_name})
    except OSError as error:
        raise MeshUnreachable(f"the authorities to trust cannot be read: {error}") from error


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn gRPC's errors into HeadraceErrors."""
    try:
        yield
    except grpc.RpcError as error:
        # A synchronous call's error has the same methods, which its type lacks.
        failed = cast(grpc.aio.AioRpcError, error)
        details = str(failed.details())
        if failed.code() is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
            raise MeshUnreachable(unreachable(url, details)) from None
        raise from_rpc_error(failed) from None
