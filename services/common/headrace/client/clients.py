"""`Client` and `AsyncClient`, which differ only in `await`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar, Unpack, cast

from headrace.client import messages
from headrace.client.answers import Answer
from headrace.client.background import AsyncBackgroundRequest, BackgroundRequest
from headrace.client.calls.endpoint import Endpoint
from headrace.client.calls.links import AsyncLink, BlockingLink
from headrace.client.calls.retries import Retries
from headrace.client.messages import ChatOptions, GenerateOptions, Prompt
from headrace.client.native import NativeScripts
from headrace.client.rest.batches import AsyncBatches, Batches, BatchScripts
from headrace.client.rest.files import AsyncFiles, Files, FileScripts
from headrace.client.rest.responses import AsyncResponses, Responses, ResponseScripts
from headrace.client.sampling import Sampling
from headrace.client.streams import AsyncStream, Stream
from headrace.client.unreachable import MeshUnreachable
from headrace.client.vectors import Embeddings, EmbedOptions, Ranking, RerankOptions
from headrace.errors import InvalidApiKey
from headrace.rpc.addresses import InvalidAddress
from headrace.v1.fleet_pb2 import Lane, Worker
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace.v1.models_pb2 import Model
from headrace.v1.own_key_pb2 import OwnKey
from headrace.v1.requests_pb2 import AttachRequestRequest, Request

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"
KEY_VARIABLE = "HEADRACE_API_KEY"


class Client:
    """Blocking client; threads may share it. Use it as a context manager, or `close` it.

    Args:
        url: of the mesh, `http://host:port` or `https://host:port`.
        api_key: of every call; a mesh that requires no keys ignores it. Default: that of the
            environment, HEADRACE_API_KEY.
        ca_file: certificates of the authorities to trust, in PEM. Default: those of the web.
        server_name: what the mesh's certificate must have. Default: the host of the URL.
        retries: how often a call that failed is sent again, and for how long.

    Raises:
        MeshUnreachable: the URL is not an address, or there is no such file.
        InvalidApiKey: the key cannot be one. White space around it is left out.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        server_name: str = "",
        retries: Retries = Retries(),  # noqa: B008  # frozen
    ) -> None:
        self.url = url
        self._link = _linked(BlockingLink, url, api_key, ca_file, server_name)
        self._scripts = NativeScripts(self._link.channel, retries)
        self.files = Files(self._link, FileScripts(retries))
        self.batches = Batches(self._link, BatchScripts(retries))
        self.responses = Responses(self._link, ResponseScripts(retries))

    def chat(self, messages: Prompt, *, model: str, **options: Unpack[ChatOptions]) -> Answer:
        """Return the answer to a conversation; a text alone is a user's message."""
        return self._link.run(self._scripts.answer(_chat_request(messages, model, options)))

    def chat_stream(
        self, messages: Prompt, *, model: str, **options: Unpack[ChatOptions]
    ) -> Stream:
        """Return the answer to a conversation piece by piece, over killed gateways too."""
        return Stream(
            self._link.iterate(self._scripts.read(_chat_request(messages, model, options)))
        )

    def generate(self, prompt: Prompt, *, model: str, **options: Unpack[GenerateOptions]) -> Answer:
        """Return what continues a text, which is tokenized unchanged."""
        return self._link.run(self._scripts.answer(_request(prompt, model, options)))

    def generate_stream(
        self, prompt: Prompt, *, model: str, **options: Unpack[GenerateOptions]
    ) -> Stream:
        """Return what continues a text piece by piece, over killed gateways too."""
        return Stream(self._link.iterate(self._scripts.read(_request(prompt, model, options))))

    def embed(
        self,
        inputs: str | Sequence[str | Sequence[int]],
        *,
        model: str,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Return a vector for each input: texts, or lists of token ids."""
        return self._link.run(self._scripts.embed(inputs, model, options))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str,
        **options: Unpack[RerankOptions],
    ) -> Ranking:
        """Return the documents by relevance to the query, best first."""
        return self._link.run(self._scripts.rerank(query, documents, model, options))

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str,
        seed: int | None = None,
        reattach: bool = True,
        **sampling: Unpack[Sampling],
    ) -> Iterator[StreamGenerateResponse]:
        """Yield the messages of a stream themselves: `started`, `queued`, deltas and `finish`.
        Closing the iterator cancels the request.

        With `reattach`, a stream that breaks off is resumed at its position through another
        gateway; without, it raises.
        """
        request = messages.make_request(prompt, model=model, seed=seed, **sampling)
        return self._link.iterate(self._scripts.read(request, reattach=reattach))

    def attach(
        self, request_id: str, *, after: str = "", reattach: bool = True
    ) -> Iterator[StreamGenerateResponse]:
        """Yield the messages of a request that was sent before, from after a position.

        Closing the iterator cancels the request unless it is a background request or has another
        reader.
        """
        request = AttachRequestRequest(request_id=request_id, after=after)
        return self._link.iterate(self._scripts.read(request, reattach=reattach))

    def generate_in_background(
        self, prompt: Prompt, *, model: str, **options: Unpack[ChatOptions]
    ) -> BackgroundRequest:
        """Start a request that runs on without this client; return once it is stored."""
        request = messages.generation_request(prompt, model, options)
        created = self._link.run(self._scripts.create_request(request))
        return self.background_request(created.request_id)

    def background_request(self, request_id: str) -> BackgroundRequest:
        """Return a handle for a request that was started before. Sends nothing."""
        return BackgroundRequest(self, request_id)

    def get_request(self, request_id: str, *, wait_s: float = 0.0) -> Request:
        """Return the state of a request, once it has ended or after `wait_s`, at most 60."""
        return self._link.run(self._scripts.get_request(request_id, wait_s))

    def cancel_request(self, request_id: str) -> Request:
        """End a request; return its state then."""
        return self._link.run(self._scripts.cancel_request(request_id))

    def models(self) -> list[Model]:
        """Return the configured models."""
        return self._link.run(self._scripts.models())

    def own_key(self) -> OwnKey:
        """Return what this client's key may do, and what is left of its limits."""
        return self._link.run(self._scripts.own_key())

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """Client for one event loop. Use it as an asynchronous context manager, or `close` it.

    The methods of `Client` are here under the same names, with the same arguments and errors.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        server_name: str = "",
        retries: Retries = Retries(),  # noqa: B008  # frozen
    ) -> None:
        self.url = url
        self._link = _linked(AsyncLink, url, api_key, ca_file, server_name)
        self._scripts = NativeScripts(self._link.channel, retries)
        self.files = AsyncFiles(self._link, FileScripts(retries))
        self.batches = AsyncBatches(self._link, BatchScripts(retries))
        self.responses = AsyncResponses(self._link, ResponseScripts(retries))

    async def chat(self, messages: Prompt, *, model: str, **options: Unpack[ChatOptions]) -> Answer:
        return await self._link.run(self._scripts.answer(_chat_request(messages, model, options)))

    def chat_stream(
        self, messages: Prompt, *, model: str, **options: Unpack[ChatOptions]
    ) -> AsyncStream:
        return AsyncStream(
            self._link.iterate(self._scripts.read(_chat_request(messages, model, options)))
        )

    async def generate(
        self, prompt: Prompt, *, model: str, **options: Unpack[GenerateOptions]
    ) -> Answer:
        return await self._link.run(self._scripts.answer(_request(prompt, model, options)))

    def generate_stream(
        self, prompt: Prompt, *, model: str, **options: Unpack[GenerateOptions]
    ) -> AsyncStream:
        return AsyncStream(self._link.iterate(self._scripts.read(_request(prompt, model, options))))

    async def embed(
        self,
        inputs: str | Sequence[str | Sequence[int]],
        *,
        model: str,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        return await self._link.run(self._scripts.embed(inputs, model, options))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str,
        **options: Unpack[RerankOptions],
    ) -> Ranking:
        return await self._link.run(self._scripts.rerank(query, documents, model, options))

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str,
        seed: int | None = None,
        reattach: bool = True,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator[StreamGenerateResponse]:
        request = messages.make_request(prompt, model=model, seed=seed, **sampling)
        return self._link.iterate(self._scripts.read(request, reattach=reattach))

    def attach(
        self, request_id: str, *, after: str = "", reattach: bool = True
    ) -> AsyncIterator[StreamGenerateResponse]:
        request = AttachRequestRequest(request_id=request_id, after=after)
        return self._link.iterate(self._scripts.read(request, reattach=reattach))

    async def generate_in_background(
        self, prompt: Prompt, *, model: str, **options: Unpack[ChatOptions]
    ) -> AsyncBackgroundRequest:
        request = messages.generation_request(prompt, model, options)
        created = await self._link.run(self._scripts.create_request(request))
        return self.background_request(created.request_id)

    def background_request(self, request_id: str) -> AsyncBackgroundRequest:
        return AsyncBackgroundRequest(self, request_id)

    async def get_request(self, request_id: str, *, wait_s: float = 0.0) -> Request:
        return await self._link.run(self._scripts.get_request(request_id, wait_s))

    async def cancel_request(self, request_id: str) -> Request:
        return await self._link.run(self._scripts.cancel_request(request_id))

    async def models(self) -> list[Model]:
        return await self._link.run(self._scripts.models())

    async def own_key(self) -> OwnKey:
        return await self._link.run(self._scripts.own_key())

    async def workers(self) -> list[Worker]:
        """Return the workers that report."""
        return await self._link.run(self._scripts.workers())

    async def lanes(self) -> list[Lane]:
        """Return the queues, one lane for each model and priority."""
        return await self._link.run(self._scripts.lanes())

    async def close(self) -> None:
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _linked(
    link: Callable[[Endpoint], T],
    url: str,
    api_key: str | None,
    ca_file: Path | str | None,
    server_name: str,
) -> T:
    # Why here: a client has no settings, and code with keys in it is copied with them.
    key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key  # noqa: TID251
    key = None if key is None else key.strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise InvalidApiKey("the API key is not one: keys are printable ASCII without spaces")
    try:
        return link(Endpoint(url, key, ca_file, server_name))
    except InvalidAddress as error:
        raise MeshUnreachable(str(error), may_pass=False) from error


def _request(prompt: Prompt, model: str, options: GenerateOptions) -> GenerateRequest:
    return messages.generation_request(prompt, model, cast(ChatOptions, options))


def _chat_request(prompt: Prompt, model: str, options: ChatOptions) -> GenerateRequest:
    return messages.generation_request(
        [prompt] if isinstance(prompt, str) else prompt, model, options
    )
