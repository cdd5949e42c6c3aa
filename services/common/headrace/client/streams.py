"""Streams of pieces, as callers iterate them; they differ in `await`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Self, cast

from headrace.client.answers import Answer, AnswerBuilder, Piece
from headrace.v1.generation_pb2 import StreamGenerateResponse


class _BaseStream:
    def __init__(self) -> None:
        self._builder = AnswerBuilder()

    @property
    def answer(self) -> Answer:
        """What has come until now; once the stream has ended, the whole answer."""
        return self._builder.answer

    @property
    def request_id(self) -> str:
        """Empty until the first piece."""
        return self._builder.request_id


class Stream(_BaseStream, Iterator[Piece]):
    """Pieces of an answer, each once. To leave it before its end, `close` it: the request is
    cancelled then."""

    def __init__(self, events: Iterator[StreamGenerateResponse]) -> None:
        super().__init__()
        self._events = events

    def __next__(self) -> Piece:
        for event in self._events:
            if (piece := self._builder.take(event)) is not None:
                return piece
        raise StopIteration

    def close(self) -> None:
        cast(Generator[Any, None, None], self._events).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_BaseStream, AsyncIterator[Piece]):
    """`Stream` of an `AsyncClient`."""

    def __init__(self, events: AsyncIterator[StreamGenerateResponse]) -> None:
        super().__init__()
        self._events = events

    async def __anext__(self) -> Piece:
        async for event in self._events:
            if (piece := self._builder.take(event)) is not None:
                return piece
        raise StopAsyncIteration

    async def close(self) -> None:
        await cast(AsyncGenerator[Any, None], self._events).aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
