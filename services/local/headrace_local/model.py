"""`LocalModel`: a model in this process, with the methods and results of `headrace.client`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Self, TypeGuard, TypeVar, Unpack, cast, overload

from headrace.client.answers import Answer, AnswerBuilder
from headrace.client.messages import ChatOptions, GenerateOptions, Message, generation_request
from headrace.client.streams import Stream
from headrace.client.vectors import (
    Embeddings,
    EmbedOptions,
    Ranking,
    RerankOptions,
    embed_request,
    embeddings,
    ranking,
    rerank_request,
)
from headrace.errors import FailedPrecondition, RequestCancelled
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace_local.loading import loaded_model
from headrace_local.running_batch import RunningBatch
from headrace_local.service import LocalService
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.loop_thread import LoopThread

T = TypeVar("T")
Tokens = Sequence[int]
"""A prompt as token ids, used unchanged."""


class _Runtime:
    """A loaded model and the threads that run it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._thread = LoopThread("headrace.load")
        self._is_closed = False
        try:
            self.card, self.service, self._batch = self.run(_started(settings))
        except BaseException:
            self._thread.stop()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; if this thread is interrupted, it is cancelled."""
        future = self._spawn(work)
        try:
            return future.result()
        except CancelledError:  # nothing but `close` cancels it
            raise RequestCancelled(f"model {self.card.model} was closed") from None
        except BaseException:
            future.cancel()
            raise

    def iterate(
        self, events: AsyncGenerator[StreamGenerateResponse, None]
    ) -> Generator[StreamGenerateResponse, None, None]:
        """Iterate on this thread what is made on the other; closing it closes `events`."""
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self.run(_next(events))
        finally:
            # Why not waited for there: garbage may be collected on any thread, the loop's too.
            if not self._is_closed and self._thread.is_current:
                self._spawn(events.aclose())
            elif not self._is_closed:
                self.run(events.aclose())

    def _spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._is_closed:
            work.close()
            raise FailedPrecondition(f"model {self.card.model} was closed: load it again")
        return self._thread.spawn(work)

    def close(self) -> None:
        if self._thread.is_current:  # collected there, and the thread cannot wait for its own end
            threading.Thread(target=self.close, name="headrace.close").start()
        elif not self._is_closed:
            self._is_closed = True
            self._thread.run(_closed(self._batch))
            self._batch.join()
            self._thread.stop()


async def _started(settings: WorkerSettings) -> tuple[ModelCard, LocalService, RunningBatch]:
    loaded, model = await loaded_model(settings)
    batch = RunningBatch(model.served.name, loaded.engine)
    return model.served.card, LocalService(model, batch), batch


async def _closed(batch: RunningBatch) -> None:
    batch.close()


async def _next(events: AsyncGenerator[StreamGenerateResponse, None]) -> StreamGenerateResponse:
    return await anext(events)


class LocalModel:
    """A model that `headrace.load` has loaded. Threads may share it; their requests run together.

    Use it as a context manager, or `close` it: its memory is free then. For the same weights,
    parameters and seed it answers as a mesh does, token for token.

    Every call raises a `headrace.errors.HeadraceError` for what it refuses or fails with.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        """Load it; blocks for as long as that takes. `headrace_local.load` reads arguments.

        Raises:
            ModelLoadFailed: with the fact.
        """
        self._runtime = _Runtime(settings)
        # Also at the end of the process: a thread that computes then would crash it.
        self._close = weakref.finalize(self, self._runtime.close)

    @property
    def name(self) -> str:
        return self._runtime.card.model

    @property
    def context_tokens(self) -> int:
        """Most tokens of prompt and output together."""
        return self._runtime.card.context_tokens

    @overload
    def generate(self, prompt: str | Tokens, **options: Unpack[GenerateOptions]) -> Answer: ...
    @overload
    def generate(
        self, prompt: list[str] | list[list[int]], **options: Unpack[GenerateOptions]
    ) -> list[Answer]: ...
    def generate(
        self, prompt: str | Tokens | list[str] | list[list[int]], **options: Unpack[GenerateOptions]
    ) -> Answer | list[Answer]:
        """Return the continuation of a text or of token ids; of a list of either, a list.

        The prompts of a list run in one batch; each answer is what its prompt alone would get.
        """
        if _is_one(prompt):
            return self._answer(self._prompted(prompt, options))
        requests = [self._prompted(each, options) for each in cast(list[str], prompt)]
        return self._runtime.run(_all_answered(self._runtime.service, requests))

    def generate_stream(self, prompt: str | Tokens, **options: Unpack[GenerateOptions]) -> Stream:
        """Return the continuation of a text or of token ids, piece by piece."""
        return self._stream(self._prompted(prompt, options))

    stream = generate_stream
    """A shorter name of it."""

    def chat(self, messages: str | Iterable[Message], **options: Unpack[ChatOptions]) -> Answer:
        """Return the answer to a conversation; a text alone is a user's message."""
        return self._answer(self._conversation(messages, options))

    def chat_stream(
        self, messages: str | Iterable[Message], **options: Unpack[ChatOptions]
    ) -> Stream:
        """Return the answer to a conversation, piece by piece."""
        return self._stream(self._conversation(messages, options))

    def embed(
        self, inputs: str | Sequence[str | Tokens], **options: Unpack[EmbedOptions]
    ) -> Embeddings:
        """Return a vector of each text, from a model that embeds."""
        request = embed_request(inputs, self.name, options)
        return embeddings(self._runtime.run(self._runtime.service.embed(request)))

    def rerank(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> Ranking:
        """Return the documents by their relevance to the query, from a model that scores or
        embeds."""
        request = rerank_request(query, documents, self.name, options)
        return ranking(self._runtime.run(self._runtime.service.rerank(request)), documents)

    def close(self) -> None:
        """Cancel what runs, and free the model."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalModel {self.name}>"

    def _prompted(self, prompt: str | Tokens, options: GenerateOptions) -> GenerateRequest:
        if isinstance(prompt, str):
            return generation_request(prompt, self.name, cast(ChatOptions, options))
        request = generation_request("", self.name, cast(ChatOptions, options))
        request.prompt_token_ids.extend(prompt)
        return request

    def _conversation(
        self, messages: str | Iterable[Message], options: ChatOptions
    ) -> GenerateRequest:
        return generation_request(
            [messages] if isinstance(messages, str) else messages, self.name, options
        )

    def _answer(self, request: GenerateRequest) -> Answer:
        return self._runtime.run(_answered(self._runtime.service, request))

    def _stream(self, request: GenerateRequest) -> Stream:
        return Stream(self._events(request))

    def _events(self, request: GenerateRequest) -> Generator[StreamGenerateResponse, None, None]:
        # Why a generator of this object: it keeps the model open for as long as it is iterated.
        yield from self._runtime.iterate(self._runtime.service.stream(request))


def _is_one(prompt: str | Tokens | list[str] | list[list[int]]) -> TypeGuard[str | Tokens]:
    return isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))


async def _answered(service: LocalService, request: GenerateRequest) -> Answer:
    builder = AnswerBuilder()
    async for event in service.stream(request):
        builder.take(event)
    return builder.answer


async def _all_answered(service: LocalService, requests: Sequence[GenerateRequest]) -> list[Answer]:
    """Answer all of them in one batch; if one fails, the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_answered(service, each)) for each in requests]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
