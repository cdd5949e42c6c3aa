"""The two clients, which differ only in `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, Unpack, cast
from uuid import uuid4

import grpc

from headrace.client.background import AsyncDetached, Detached
from headrace.client.reader import BREAKS, Thread
from headrace.client.sampling import Sampling
from headrace.errors import CapacityError, Code
from headrace.rpc.addresses import BadAddress, target
from headrace.rpc.channels import CLIENT_PINGS, aio_channel, blocking_channel
from headrace.rpc.status import from_rpc_error, from_status
from headrace.v1 import (
    common_pb2,
    fleet_pb2,
    fleet_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)

Prompt = str | Iterable[tuple[str, str]]
"""Plain text, or a conversation as (role, content)."""
Events = Iterator[generation_pb2.StreamGenerateResponse]
AsyncEvents = AsyncIterator[generation_pb2.StreamGenerateResponse]
_AsyncCall = grpc.aio.UnaryStreamCall[Any, generation_pb2.StreamGenerateResponse]

_CALL_S = 30.0
_RETURN_PAUSE_S = 0.1


class MeshUnreachable(CapacityError):
    """Nothing that speaks gRPC answers at the URL."""

    code = Code.UNAVAILABLE


def make_request(
    prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
) -> generation_pb2.GenerateRequest:
    parameters = common_pb2.SamplingParameters(**sampling)
    request = generation_pb2.GenerateRequest(model=model, seed=seed, parameters=parameters)
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.messages.extend(
            generation_pb2.ChatMessage(role=role, content=content) for role, content in prompt
        )
    return request


class Client:
    """Blocking; may be shared by threads. A context manager, or `close` it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._channel = blocking_channel(_target(url), pings=CLIENT_PINGS)
        self._generation = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._requests = requests_pb2_grpc.RequestServiceStub(self._channel)

    def generate(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> generation_pb2.GenerateResponse:
        """The whole answer."""
        request = make_request(prompt, model=model, seed=seed, **sampling)
        with _translated(self.url):
            return self._generation.Generate(request)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str,
        seed: int | None = None,
        reattach: bool = True,
        **sampling: Unpack[Sampling],
    ) -> Events:
        """Started, deltas, finish. Closing the iterator cancels the request.

        With `reattach` a stream that breaks off is taken up again where it was, at another
        gateway; without, it raises.
        """
        request = make_request(prompt, model=model, seed=seed, **sampling)
        return self._read(lambda: self._generation.StreamGenerate(request), Thread(reattach))

    def attach(self, request_id: str, *, after: str = "", reattach: bool = True) -> Events:
        """The same of a request that was sent before, from behind a position. Closing the iterator
        cancels it if nobody else reads it and it is not detached."""
        rest = requests_pb2.AttachRequestRequest(request_id=request_id, after=after)
        return self._read(lambda: self._requests.AttachRequest(rest), Thread(reattach, after))

    def _read(self, begin: Callable[[], Any], thread: Thread) -> Events:
        with _translated(self.url):
            call = begin()
            while True:
                try:
                    for event in call:
                        if thread.take(event):
                            yield _checked(event)
                    return
                except (grpc.RpcError, *BREAKS) as error:
                    if not thread.may_go_on(error):
                        raise
                finally:
                    call.cancel()
                time.sleep(_RETURN_PAUSE_S)
                call = self._requests.AttachRequest(thread.rest())

    def detach(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> Detached:
        """Begin something that goes on without us; returns once it is stored."""
        request = make_request(prompt, model=model, seed=seed, **sampling)
        # Why a name of ours: the call may be made again, and begins nothing twice.
        request.request_id = uuid4().hex
        with _translated(self.url):
            begun = self._requests.CreateRequest(request, timeout=_CALL_S)
        return self.detached(begun.request_id)

    def detached(self, request_id: str) -> Detached:
        """A request that has been begun before; nothing is asked yet."""
        return Detached(self, request_id)

    def get_request(self, request_id: str) -> requests_pb2.Request:
        question = requests_pb2.GetRequestRequest(request_id=request_id)
        with _translated(self.url):
            return self._requests.GetRequest(question, timeout=_CALL_S)

    def cancel_request(self, request_id: str) -> requests_pb2.Request:
        question = requests_pb2.CancelRequestRequest(request_id=request_id)
        with _translated(self.url):
            return self._requests.CancelRequest(question, timeout=_CALL_S)

    def models(self) -> list[models_pb2.Model]:
        with _translated(self.url):
            answer = self._models.ListModels(models_pb2.ListModelsRequest(), timeout=_CALL_S)
        return list(answer.models)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """For one event loop. An asynchronous context manager, or `close` it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._channel = aio_channel(_target(url), pings=CLIENT_PINGS)
        self._generation = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._requests = requests_pb2_grpc.RequestServiceStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetServiceStub(self._channel)

    async def generate(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> generation_pb2.GenerateResponse:
        """The whole answer."""
        request = make_request(prompt, model=model, seed=seed, **sampling)
        with _translated(self.url):
            return await self._generation.Generate(request)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str,
        seed: int | None = None,
        reattach: bool = True,
        **sampling: Unpack[Sampling],
    ) -> AsyncEvents:
        """As `Client.stream`."""
        request = make_request(prompt, model=model, seed=seed, **sampling)
        return self._read(lambda: self._generation.StreamGenerate(request), Thread(reattach))

    def attach(self, request_id: str, *, after: str = "", reattach: bool = True) -> AsyncEvents:
        """As `Client.attach`."""
        rest = requests_pb2.AttachRequestRequest(request_id=request_id, after=after)
        return self._read(lambda: self._requests.AttachRequest(rest), Thread(reattach, after))

    async def _read(self, begin: Callable[[], _AsyncCall], thread: Thread) -> AsyncEvents:
        with _translated(self.url):
            call = begin()
            while True:
                try:
                    async for event in call:
                        if thread.take(event):
                            yield _checked(event)
                    return
                except (grpc.RpcError, *BREAKS) as error:
                    if not thread.may_go_on(error):
                        raise
                finally:
                    call.cancel()
                await asyncio.sleep(_RETURN_PAUSE_S)
                call = self._requests.AttachRequest(thread.rest())

    async def detach(
        self, prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
    ) -> AsyncDetached:
        """As `Client.detach`."""
        request = make_request(prompt, model=model, seed=seed, **sampling)
        request.request_id = uuid4().hex
        with _translated(self.url):
            begun = await self._requests.CreateRequest(request, timeout=_CALL_S)
        return self.detached(begun.request_id)

    def detached(self, request_id: str) -> AsyncDetached:
        """As `Client.detached`."""
        return AsyncDetached(self, request_id)

    async def get_request(self, request_id: str) -> requests_pb2.Request:
        question = requests_pb2.GetRequestRequest(request_id=request_id)
        with _translated(self.url):
            return await self._requests.GetRequest(question, timeout=_CALL_S)

    async def cancel_request(self, request_id: str) -> requests_pb2.Request:
        question = requests_pb2.CancelRequestRequest(request_id=request_id)
        with _translated(self.url):
            return await self._requests.CancelRequest(question, timeout=_CALL_S)

    async def models(self) -> list[models_pb2.Model]:
        with _translated(self.url):
            answer = await self._models.ListModels(models_pb2.ListModelsRequest(), timeout=_CALL_S)
        return list(answer.models)

    async def workers(self) -> list[fleet_pb2.Worker]:
        with _translated(self.url):
            answer = await self._fleet.ListWorkers(fleet_pb2.ListWorkersRequest(), timeout=_CALL_S)
        return list(answer.workers)

    async def lanes(self) -> list[fleet_pb2.Lane]:
        with _translated(self.url):
            answer = await self._fleet.ListLanes(fleet_pb2.ListLanesRequest(), timeout=_CALL_S)
        return list(answer.lanes)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _target(url: str) -> str:
    try:
        return target(url)
    except BadAddress as error:
        raise MeshUnreachable(str(error)) from error


def _checked(
    event: generation_pb2.StreamGenerateResponse,
) -> generation_pb2.StreamGenerateResponse:
    if event.HasField("finish") and event.finish.HasField("error"):
        raise from_status(event.finish.error)
    return event


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        # A synchronous call's error has the same methods; its type does not say so.
        failed = cast(grpc.aio.AioRpcError, error)
        fact = str(failed.details())
        if failed.code() is grpc.StatusCode.UNAVAILABLE and "connect" in fact.lower():
            raise MeshUnreachable(f"nothing answers at {url}: {fact}") from None
        raise from_rpc_error(failed) from None
