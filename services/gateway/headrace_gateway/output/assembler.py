"""Pure: turns the token ids of a generation into text, reasoning, calls and ends of choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, ToolCall, Usage
from headrace_gateway.models.text import TextStream
from headrace_gateway.output.guarded import GuardedParser
from headrace_gateway.parsers.pieces import CallPiece, Parser, Piece, Reasoning
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from headrace_gateway.request.logprob_columns import written

UNFINISHED = FinishReason.FINISH_REASON_UNSPECIFIED


@dataclass(slots=True)
class ChoiceDelta:
    """New output of one choice."""

    choice: int
    first_index: int
    """Output index of the first of `token_ids`; contiguous over a choice."""
    text: str = ""
    """May be empty while tokens are not, and the other way round."""
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason.ValueType = UNFINISHED
    """Set in the last delta of the choice."""
    stopped: bool = False
    """It ended by a stop string, which its worker does not look for."""
    stop_string: str = ""
    """That stop string, in the last delta of the choice."""
    logprobs: Logprobs | None = None
    """Of `token_ids`, whether or not their text is held back; None where they are not requested."""
    prompt_logprobs: Logprobs | None = None
    """In the first delta of a choice, if requested."""
    cached_prompt: int | None = None
    """As `Tokens` has it."""
    calls: list[CallPiece] = field(default_factory=list)
    """Parts of tool calls, which are not in `text`."""
    reasoning: str = ""
    """It comes before `text`, and is not in it."""
    reasoned: int = 0
    """So many of `token_ids` are up to the last one of the reasoning or its marks."""
    replayed: bool = False
    """The client has it already; the API uses it for its own state and does not send it."""

    @property
    def end_index(self) -> int:
        """Output tokens of the choice up to and including this delta."""
        return self.first_index + len(self.token_ids)


@dataclass(slots=True)
class _Call:
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    """Parts: a text that grows with each token would be copied as often."""


@dataclass(slots=True)
class _ChoiceOutput:
    stream: TextStream
    parser: Parser | None
    calls: list[_Call] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    reasoning_tokens: int = 0
    answer_index: int = 0
    """Of the first token behind the last one of the reasoning or its marks."""
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None
    finish_reason: FinishReason.ValueType = UNFINISHED


class OutputAssembler:
    """Assembles the output of one request, and holds its text and ids."""

    def __init__(
        self,
        streams: Iterable[TextStream],
        *,
        prompt_tokens: int,
        request_id: str = "",
        make_parser: Callable[[], Parser | None] = lambda: None,
        counts_reasoning: bool = False,
    ) -> None:
        """
        Args:
            request_id: the ids of tool calls derive from it.
            make_parser: returns a new parser of a choice's text, or None: all of it is content.
            counts_reasoning: whether the usage has the tokens of reasoning.
        """
        self._choices = [_ChoiceOutput(stream, _guarded(make_parser())) for stream in streams]
        self._counts_reasoning = counts_reasoning
        self._request_id = request_id
        self._prompt_tokens = prompt_tokens
        self._cached: int | None = None
        """Of the first choice: the others find in the cache what that one has put there."""
        self._unfinished = len(self._choices)

    @property
    def complete(self) -> bool:
        """Every choice has ended."""
        # A count, because it is read several times for each token.
        return self._unfinished == 0

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
        """Return the deltas of these events: at most one for each choice.

        Text that only the end releases is a delta of its own, without tokens: so the text of so
        many tokens does not depend on when the end comes.
        """
        news: dict[int, ChoiceDelta] = {}
        last: list[ChoiceDelta] = []
        for event in events:
            choice = self._choices[event.choice]
            if choice.finish_reason != UNFINISHED:
                # Sent after a stop string, before the worker knew of it.
                continue
            delta = news.get(event.choice)
            if delta is None:
                delta = news[event.choice] = ChoiceDelta(event.choice, len(choice.token_ids))
            if isinstance(event, Tokens):
                self._take_replayed(choice, delta, event)
            else:
                last += self._end(choice, delta, event.finish_reason)
            if choice.finish_reason != UNFINISHED:
                self._unfinished -= 1
        deltas = [*news.values(), *last]
        for delta in deltas:
            if delta.finish_reason != UNFINISHED:
                delta.stop_string = self._choices[delta.choice].stream.stop_string
        return deltas

    def usage(self) -> Usage:
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return Usage(
            prompt_tokens=self._prompt_tokens,
            output_tokens=sum(len(choice.token_ids) for choice in self._choices),
            cached_prompt_tokens=self._cached,
            reasoning_tokens=reasoning if self._counts_reasoning else None,
        )

    def answer_index(self, choice: int) -> int:
        """Return where the answer of a choice begins, in tokens: behind all of its reasoning."""
        return self._choices[choice].answer_index

    def outcome(self) -> RequestOutcome:
        choices = [
            Choice(
                index=index,
                text="".join(choice.texts),
                token_ids=choice.token_ids,
                finish_reason=choice.finish_reason,
                logprobs=written(choice.logprobs),
                prompt_logprobs=written(choice.prompt_logprobs),
                tool_calls=[
                    ToolCall(
                        call_id=call.call_id, name=call.name, arguments="".join(call.arguments)
                    )
                    for call in choice.calls
                ],
                reasoning="".join(choice.reasoning),
                stop_string=choice.stream.stop_string or None,
            )
            for index, choice in enumerate(self._choices)
        ]
        return RequestOutcome(choices=choices, usage=self.usage())

    def _take_replayed(self, choice: _ChoiceOutput, delta: ChoiceDelta, tokens: Tokens) -> None:
        used, stopped = self._decode(choice, delta, tokens.token_ids)
        delta.token_ids = tokens.token_ids[:used]
        choice.token_ids += delta.token_ids
        if tokens.prompt_logprobs is not None:
            delta.prompt_logprobs = choice.prompt_logprobs = tokens.prompt_logprobs
        if tokens.cached_prompt is not None:
            delta.cached_prompt = tokens.cached_prompt
            self._cached = tokens.cached_prompt if delta.choice == 0 else self._cached
        if tokens.logprobs is not None:
            delta.logprobs = tokens.logprobs.cut(0, used)
            choice.logprobs = choice.logprobs or Logprobs()
            choice.logprobs.extend(delta.logprobs)
        if stopped:
            delta.stopped = True
            delta.finish_reason = choice.finish_reason = FinishReason.FINISH_REASON_STOP

    def _decode(
        self, choice: _ChoiceOutput, delta: ChoiceDelta, token_ids: list[int]
    ) -> tuple[int, bool]:
        """Add the text of these ids; return how many were used, and whether a stop string came."""
        if choice.parser is None:
            piece = choice.stream.feed(token_ids)
            self._add_text(choice, delta, piece.text, last=False)
            return piece.used, piece.stopped
        # Why one by one: white space between calls is kept or not by what it comes with, and
        # the text of so many tokens must not depend on how they came.
        for used, token_id in enumerate(token_ids, 1):
            piece = choice.stream.feed([token_id])
            reasoned = choice.parser.reasons
            self._add_text(choice, delta, piece.text, last=piece.stopped)
            # The marks are no part of it.
            choice.reasoning_tokens += reasoned and choice.parser.reasons
            if reasoned or choice.parser.reasons:
                delta.reasoned, choice.answer_index = used, delta.first_index + used
            if piece.stopped:
                return used, True
        return len(token_ids), False

    def _end(
        self, choice: _ChoiceOutput, delta: ChoiceDelta, reason: FinishReason.ValueType
    ) -> list[ChoiceDelta]:
        """End the choice; the end is a delta of its own if it releases text behind other tokens."""
        choice.finish_reason = reason
        last = ChoiceDelta(delta.choice, len(choice.token_ids))
        self._add_text(choice, last, choice.stream.flush(), last=True)
        if delta.token_ids and (last.text or last.calls or last.reasoning):
            last.finish_reason = reason
            return [last]
        delta.text, delta.calls = delta.text + last.text, delta.calls + last.calls
        delta.reasoning += last.reasoning
        delta.finish_reason = reason
        return []

    def _add_text(
        self, choice: _ChoiceOutput, delta: ChoiceDelta, text: str, *, last: bool
    ) -> None:
        pieces: list[Piece] = [text] if text else []
        if choice.parser is not None:
            pieces = choice.parser.feed(text) + (choice.parser.flush() if last else [])
        for piece in pieces:
            if isinstance(piece, str):
                delta.text += piece
                choice.texts.append(piece)
                continue
            if isinstance(piece, Reasoning):
                delta.reasoning += piece.text
                choice.reasoning.append(piece.text)
                continue
            if piece.name is not None:
                # Derived, so that a replayed call has the same id at every gateway.
                call_id = f"call_{self._request_id}_{delta.choice}_{piece.index}"
                choice.calls.append(_Call(call_id, piece.name))
                piece = replace(piece, call_id=call_id)
            delta.calls.append(piece)
            choice.calls[-1].arguments.append(piece.arguments)


def _guarded(parser: Parser | None) -> Parser | None:
    return None if parser is None else GuardedParser(parser)
