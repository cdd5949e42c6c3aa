"""Pure room: a generation's events to what each choice says, and how it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome, Usage
from headrace_gateway.generation import ChoiceEnded, Tokens
from headrace_gateway.text import TextStream

UNFINISHED = FinishReason.FINISH_REASON_UNSPECIFIED


@dataclass(slots=True)
class Said:
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


@dataclass(slots=True)
class _Spoken:
    stream: TextStream
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason.ValueType = UNFINISHED


class Transcript:
    """All that has been said. Holds its text and ids until it is dropped."""

    def __init__(self, streams: Iterable[TextStream], *, prompt_tokens: int) -> None:
        self._choices = [_Spoken(stream) for stream in streams]
        self._prompt_tokens = prompt_tokens
        self._unfinished = len(self._choices)

    @property
    def complete(self) -> bool:
        """Every choice has ended."""
        # A count, because it is asked for several times with every token.
        return self._unfinished == 0

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[Said]:
        """The news in these events: at most one for each choice, each with text, ids or an end."""
        news: dict[int, Said] = {}
        for event in events:
            choice = self._choices[event.choice]
            if choice.finish_reason != UNFINISHED:
                # After a stop string, until the worker hears of it.
                continue
            said = news.get(event.choice)
            if said is None:
                said = news[event.choice] = Said(event.choice, len(choice.token_ids))
            if isinstance(event, Tokens):
                _hear(choice, said, event.token_ids)
            else:
                _end(choice, said, event.finish_reason)
            if choice.finish_reason != UNFINISHED:
                self._unfinished -= 1
        return list(news.values())

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            output_tokens=sum(len(choice.token_ids) for choice in self._choices),
        )

    def outcome(self) -> RequestOutcome:
        choices = [
            Choice(
                index=index,
                text="".join(choice.texts),
                token_ids=choice.token_ids,
                finish_reason=choice.finish_reason,
            )
            for index, choice in enumerate(self._choices)
        ]
        return RequestOutcome(choices=choices, usage=self.usage())


def _hear(choice: _Spoken, said: Said, token_ids: Sequence[int]) -> None:
    piece = choice.stream.feed(token_ids)
    said.token_ids = token_ids[: piece.used]
    choice.token_ids += said.token_ids
    _say(choice, said, piece.text)
    if piece.stopped:
        said.stopped = True
        said.finish_reason = choice.finish_reason = FinishReason.FINISH_REASON_STOP


def _end(choice: _Spoken, said: Said, reason: FinishReason.ValueType) -> None:
    _say(choice, said, choice.stream.flush())
    said.finish_reason = choice.finish_reason = reason


def _say(choice: _Spoken, said: Said, text: str) -> None:
    if text:
        said.text += text
        choice.texts.append(text)
