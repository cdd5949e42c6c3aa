"""One generation on its way to one caller, whichever door the caller came through."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError, InternalError
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.output.assembler import ChoiceDelta, OutputAssembler
from headrace_gateway.output.position import BEGINNING, Offset
from headrace_gateway.output.replay import Replay
from headrace_gateway.request.generation import Failed, Generation, Queued, RequestDescription


class GenerationFailed(Exception):
    """The mesh ended the request with `error`; tell the caller, then settle."""

    def __init__(self, error: HeadraceError) -> None:
        super().__init__(error.message)
        self.error = error


class Answer:
    """A context manager: leaving it without having settled abandons the generation.

    So a caller that goes away, an error of ours and a cancelled task all cancel what
    runs, and each generation ends by exactly one of settle and abandon.
    """

    def __init__(
        self,
        generation: Generation,
        request: RequestDescription,
        assembler: OutputAssembler,
        tokenizer: Tokenizer,
        offsets: Sequence[Offset] | None = None,
    ) -> None:
        """`offsets`: what the caller has of it already; unset: nothing."""
        self.request = request
        self.tokenizer = tokenizer
        self.offsets = offsets or [BEGINNING] * request.n
        self._generation = generation
        self._events = generation.events()
        self._assembler = assembler
        self._take = assembler.take
        if offsets is not None:
            self._take = Replay(assembler, offsets).take
        self._error: HeadraceError | None = None
        self._ended = False
        self.queued: Queued | None = None
        """What the last news were, if nothing was said but that it waits."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._ended:
            self._ended = True
            await self._generation.abandon()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[ChoiceDelta]:
        """What has been said since the last call; ends when every choice has.

        Raises:
            GenerationFailed: nothing more will come, though not all has been said.
            InvalidRequest: the caller has more of it than there is.
        """
        if self._error is not None:
            raise GenerationFailed(self._error)
        try:
            events = await anext(self._events)
        except StopAsyncIteration:
            if self.complete:
                raise
            raise InternalError("the mesh left a generation without its end") from None
        self.queued = next((event for event in events if isinstance(event, Queued)), None)
        delta = self._take(e for e in events if not isinstance(e, Failed | Queued))
        for news in delta:
            if news.stopped:
                self._generation.end_choice(news.choice)
        failed = next((event for event in events if isinstance(event, Failed)), None)
        if failed is not None and not self.complete:
            self._error = failed.error
        return delta

    @property
    def arrival_s(self) -> float:
        """Of the request, in Unix time."""
        return self._generation.arrival_s

    @property
    def complete(self) -> bool:
        """Every choice has been said to its end; there is nothing to wait for."""
        return self._assembler.complete

    @property
    def error(self) -> HeadraceError | None:
        """What the mesh ended the request with."""
        return self._error

    def usage(self) -> Usage:
        """Of what has been said so far."""
        return self._assembler.usage()

    def outcome(self) -> RequestOutcome:
        outcome = self._assembler.outcome()
        if self._error is not None:
            outcome.error.CopyFrom(to_status(self._error))
        return outcome

    async def settle(self) -> None:
        """The caller has been told the end, good or bad."""
        self._ended = True
        await self._generation.settle(self.outcome())
