"""The output of one request, written by the engine's steps and read by one caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1.common_pb2 import FinishReason, RequestOutcome
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens

Cancel = Callable[["LocalOutput", "int | None"], None]
"""Stops a choice of an output; None: all of them."""


class LocalOutput(Generation):
    """Not thread-safe: the engine's steps arrive on the loop that its reader runs on."""

    def __init__(self, record: RequestRecord, cancel: Cancel) -> None:
        super().__init__(record)
        self._cancel = cancel
        self._open = set(range(max(1, record.n)))
        """Choices that neither the engine nor the reader has ended."""
        self._tokens: dict[int, Tokens] = {}
        """By choice: what has come since the last read; at most `max_tokens` of each."""
        self._ends: list[Event] = []
        self._news = asyncio.Event()

    # For the engine

    def add(self, tokens: Tokens) -> None:
        if tokens.choice not in self._open:
            return
        held = self._tokens.setdefault(tokens.choice, tokens)
        if held is not tokens:
            held.token_ids.extend(tokens.token_ids)
            if held.logprobs is not None and tokens.logprobs is not None:
                held.logprobs.extend(tokens.logprobs)
        self._news.set()

    def end(self, choice: int, reason: FinishReason.ValueType, vector: bytes = b"") -> None:
        if choice in self._open:
            self._open.discard(choice)
            self._ends.append(ChoiceEnded(choice, reason, vector))
            self._news.set()

    def fail(self, error: HeadraceError) -> None:
        """End all of it with an error, unless it has ended."""
        if self._open:
            self._open.clear()
            self._ends.append(Failed(error))
            self._news.set()

    # For the reader

    async def events(self) -> AsyncIterator[list[Event]]:
        while self._open or self._tokens or self._ends:
            await self._news.wait()
            self._news.clear()
            if events := self.arrived():
                yield events

    def arrived(self) -> list[Event]:
        events = [*self._tokens.values(), *self._ends]
        self._tokens, self._ends = {}, []
        return events

    def end_choice(self, choice: int, tokens: int) -> None:
        self._open.discard(choice)
        self._tokens.pop(choice, None)
        self._cancel(self, choice)

    async def settle(self, outcome: RequestOutcome) -> None:
        self._open.clear()
        self._cancel(self, None)

    async def abandon(self) -> None:
        self._open.clear()
        self._cancel(self, None)
