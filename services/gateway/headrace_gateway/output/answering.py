"""`Answer`: the output of one request on its way to one caller, whichever API was called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError, InternalError
from headrace.internal.v1.request_pb2 import Rendering, Sampling
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import RequestOutcome, Usage
from headrace_gateway.models.catalog import Catalog, ServedModel
from headrace_gateway.models.text import StopStrings
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.output.assembler import ChoiceDelta, OutputAssembler
from headrace_gateway.output.position import BEGINNING, Offset
from headrace_gateway.output.replay import Replay
from headrace_gateway.parsers.registry import marks_of, parser_for
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Queued,
    RecordedRequest,
    RequestDescription,
    Tokens,
)

Take = Callable[[Iterable[Tokens | ChoiceEnded]], list[ChoiceDelta]]
"""As `OutputAssembler.take`."""


class GenerationFailed(Exception):
    """The request ended with `error`: settle, then send it to the caller."""

    def __init__(self, error: HeadraceError) -> None:
        super().__init__(error.message)
        self.error = error


class Answer:
    """A context manager: leaving it without having settled abandons the generation.

    So a caller that disconnects, an internal error and a cancelled task all cancel the request,
    and each generation ends by exactly one of settle and abandon.
    """

    def __init__(
        self,
        generation: Generation,
        request: RequestDescription,
        assembler: OutputAssembler,
        tokenizer: Tokenizer,
        offsets: Sequence[Offset] | None = None,
    ) -> None:
        """`offsets`: the part that the caller has already; unset: nothing."""
        self.request = request
        self.tokenizer = tokenizer
        self.offsets = offsets or [BEGINNING] * request.n
        self._generation = generation
        self._events = generation.events()
        self._assembler = assembler
        self._take: Take = assembler.take
        if offsets is not None:
            self._take = Replay(assembler, offsets).take
        self.error: HeadraceError | None = None
        """The error that the request ended with, if any."""
        self._ended = False
        self.queued: Queued | None = None
        """The place in the queue, if the last events brought nothing else."""

    def one_token_each(self) -> Self:
        """Return it with a delta for each token, however the output came, and one for its end."""
        self._take = partial(take_singly, self._take)
        return self

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
            try:
                self._read_arrived()
            finally:
                await self._generation.abandon()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[ChoiceDelta]:
        """Return the deltas since the last call; stop when every choice has ended.

        Raises:
            GenerationFailed: the request failed; nothing more will come.
            InvalidRequest: the caller claims to have more than there is.
        """
        if self.error is not None:
            raise GenerationFailed(self.error)
        try:
            events = await anext(self._events)
        except StopAsyncIteration:
            if self.complete:
                raise
            raise InternalError("a generation stopped without an end") from None
        self.queued = next((event for event in events if isinstance(event, Queued)), None)
        delta = self._take(_outputs(events))
        self._end_stopped(delta)
        failed = next((event for event in events if isinstance(event, Failed)), None)
        if failed is not None and not self.complete:
            self.error = failed.error
        return delta

    def _read_arrived(self) -> None:
        """End choices at the stop strings in what its reader leaves unread: what is behind them
        is not billed."""
        # Why not `_take`: an offset that is wrong changes nothing of what was made.
        self._end_stopped(self._assembler.take(_outputs(self._generation.arrived())))

    def _end_stopped(self, deltas: Iterable[ChoiceDelta]) -> None:
        for delta in deltas:
            if delta.stopped:
                self._generation.end_choice(delta.choice, delta.end_index)

    @property
    def arrival_s(self) -> float:
        """Of the request, in Unix time."""
        return self._generation.arrival_s

    @property
    def complete(self) -> bool:
        """Every choice has ended."""
        return self._assembler.complete

    def usage(self) -> Usage:
        """Return the usage of the output so far."""
        return self._assembler.usage()

    def answer_index(self, choice: int) -> int:
        """Return the index of a choice's first token behind its reasoning."""
        return self._assembler.answer_index(choice)

    def outcome(self) -> RequestOutcome:
        outcome = self._assembler.outcome()
        if self.error is not None:
            outcome.error.CopyFrom(to_status(self.error))
        return outcome

    async def settle(self) -> None:
        """Report the end, good or bad, before it is sent to the caller; at most once."""
        if self._ended:
            return
        self._ended = True
        await self._generation.settle(self.outcome())


def _outputs(events: Iterable[Event]) -> Iterator[Tokens | ChoiceEnded]:
    return (event for event in events if not isinstance(event, Failed | Queued))


def take_singly(take: Take, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
    """Take the tokens of these events one by one; return a delta for each, and for each end."""
    deltas: list[ChoiceDelta] = []
    for event in events:
        for single in event.singly() if isinstance(event, Tokens) else (event,):
            deltas += take([single])
    return deltas


def rebuild_answer(
    catalog: Catalog, generation: Generation, offsets: Sequence[Offset] | None = None
) -> Answer:
    """Return the answer of one more reader to a request that another call has opened.

    Raises:
        HeadraceError: its model is not known here.
    """
    record = generation.record
    request, served = RecordedRequest(record), catalog.of_record(record.model)
    return make_answer(generation, request, served, record.sampling, record.rendering, offsets)


def make_answer(
    generation: Generation,
    request: RequestDescription,
    served: ServedModel,
    sampling: Sampling,
    rendering: Rendering,
    offsets: Sequence[Offset] | None = None,
) -> Answer:
    stops = StopStrings(rendering.stop) if rendering.stop else None
    silent = set(sampling.stop_token_ids)
    if not sampling.ignore_eos:
        silent.update(served.card.eos_token_ids)
    silent = set() if rendering.include_stop else silent
    hidden = None
    if not rendering.keep_special_tokens:
        hidden = served.tokenizer.hidden_beside(marks_of(rendering))
    streams = [
        served.tokenizer.text_stream(
            stops,
            frozenset(silent | (hidden or frozenset())),
            keeps_special=rendering.keep_special_tokens or hidden is not None,
            includes_stop=rendering.include_stop,
            unstopped_tokens=sampling.min_tokens,
        )
        for _ in range(request.n)
    ]
    assembler = OutputAssembler(
        streams,
        prompt_tokens=request.prompt_tokens,
        request_id=request.request_id,
        make_parser=lambda: parser_for(rendering),
        counts_reasoning=bool(rendering.reasoning_parser),
    )
    return Answer(generation, request, assembler, served.tokenizer, offsets)
