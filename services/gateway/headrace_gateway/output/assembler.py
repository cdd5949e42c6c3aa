"""Pure room: a generation's events to what each choice says, and how it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, ToolCall, Usage
from headrace_gateway.models.text import TextStream
from headrace_gateway.output.tool_calls import CallPiece, ToolCalls
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from headrace_gateway.request.logprob_columns import written

UNFINISHED = FinishReason.FINISH_REASON_UNSPECIFIED


@dataclass(slots=True)
class ChoiceDelta:
    """News of one choice."""

    choice: int
    first_index: int
    """Output index of the first of `token_ids`; contiguous over a choice."""
    text: str = ""
    """May be empty while tokens are not, and the other way round."""
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason.ValueType = UNFINISHED
    """Set in the last news of the choice."""
    stopped: bool = False
    """It ended by a stop string, of which its worker does not know."""
    logprobs: Logprobs | None = None
    """Of `token_ids`, whether or not their text is held back; None where they are not wanted."""
    prompt_logprobs: Logprobs | None = None
    """In the first news of a choice, where they are wanted."""
    cached_prompt: int | None = None
    """As `Tokens` has it."""
    calls: list[CallPiece] = field(default_factory=list)
    """Pieces of tool calls, which are no `text`."""
    replayed: bool = False
    """The reader has it already: it is passed on for what comes after it, not to be said."""

    @property
    def end_index(self) -> int:
        """How many tokens of the choice have been said with it."""
        return self.first_index + len(self.token_ids)


@dataclass(slots=True)
class _ChoiceOutput:
    stream: TextStream
    parser: ToolCalls | None
    calls: list[ToolCall] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None
    finish_reason: FinishReason.ValueType = UNFINISHED


class OutputAssembler:
    """All that has been said. Holds its text and ids until it is dropped."""

    def __init__(
        self,
        streams: Iterable[TextStream],
        *,
        prompt_tokens: int,
        request_id: str = "",
        calls_tools: bool = False,
    ) -> None:
        """With `calls_tools` the text is searched for calls, whose ids the request's id makes."""
        self._choices = [
            _ChoiceOutput(stream, ToolCalls() if calls_tools else None) for stream in streams
        ]
        self._request_id = request_id
        self._prompt_tokens = prompt_tokens
        self._cached: int | None = None
        """Of the first choice: the others find in the cache what that one has put there."""
        self._unfinished = len(self._choices)

    @property
    def complete(self) -> bool:
        """Every choice has ended."""
        # A count, because it is asked for several times with every token.
        return self._unfinished == 0

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
        """The news in these events: at most one for each choice, each with text, ids or an end.

        But text that only the end sets free is news of its own, without tokens: so what is said
        with so many tokens does not depend on when the end comes.
        """
        news: dict[int, ChoiceDelta] = {}
        last: list[ChoiceDelta] = []
        for event in events:
            choice = self._choices[event.choice]
            if choice.finish_reason != UNFINISHED:
                # After a stop string, until the worker hears of it.
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
        return [*news.values(), *last]

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            output_tokens=sum(len(choice.token_ids) for choice in self._choices),
            cached_prompt_tokens=self._cached,
        )

    def outcome(self) -> RequestOutcome:
        choices = [
            Choice(
                index=index,
                text="".join(choice.texts),
                token_ids=choice.token_ids,
                finish_reason=choice.finish_reason,
                logprobs=written(choice.logprobs),
                prompt_logprobs=written(choice.prompt_logprobs),
                tool_calls=choice.calls,
            )
            for index, choice in enumerate(self._choices)
        ]
        return RequestOutcome(choices=choices, usage=self.usage())

    def _take_replayed(self, choice: _ChoiceOutput, delta: ChoiceDelta, tokens: Tokens) -> None:
        used, stopped = self._spell(choice, delta, tokens.token_ids)
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

    def _spell(
        self, choice: _ChoiceOutput, delta: ChoiceDelta, token_ids: list[int]
    ) -> tuple[int, bool]:
        """Say their text; how many of them it took, and whether a stop string came."""
        if choice.parser is None:
            piece = choice.stream.feed(token_ids)
            self._say(choice, delta, piece.text, last=False)
            return piece.used, piece.stopped
        # Why one by one: white space between calls is kept or not by what it comes with, and
        # what so many tokens say must not depend on how they came.
        for used, token_id in enumerate(token_ids, 1):
            piece = choice.stream.feed([token_id])
            self._say(choice, delta, piece.text, last=piece.stopped)
            if piece.stopped:
                return used, True
        return len(token_ids), False

    def _end(
        self, choice: _ChoiceOutput, delta: ChoiceDelta, reason: FinishReason.ValueType
    ) -> list[ChoiceDelta]:
        """The end, said with what is said anyway, unless it has text of its own."""
        choice.finish_reason = reason
        last = ChoiceDelta(delta.choice, len(choice.token_ids))
        self._say(choice, last, choice.stream.flush(), last=True)
        if delta.token_ids and (last.text or last.calls):
            last.finish_reason = reason
            return [last]
        delta.text, delta.calls = delta.text + last.text, delta.calls + last.calls
        delta.finish_reason = reason
        return []

    def _say(self, choice: _ChoiceOutput, delta: ChoiceDelta, text: str, *, last: bool) -> None:
        pieces: list[str | CallPiece] = [text] if text else []
        if choice.parser is not None:
            pieces = choice.parser.feed(text) + (choice.parser.flush() if last else [])
        for piece in pieces:
            if isinstance(piece, str):
                delta.text += piece
                choice.texts.append(piece)
                continue
            if piece.name is not None:
                # Whoever hears the request's output again gives its calls the same ids.
                call_id = f"call_{self._request_id}_{delta.choice}_{piece.index}"
                choice.calls.append(ToolCall(call_id=call_id, name=piece.name))
                piece = replace(piece, call_id=call_id)
            delta.calls.append(piece)
            choice.calls[-1].arguments += piece.arguments
