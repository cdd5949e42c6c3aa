"""Pure room: an answer heard from its beginning by a reader who has a part of it.

What was said before is said again to the transcript, and passed on as heard: text held
back, tool calls begun and places within the text then stand where they stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headrace.errors import InvalidRequest
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta, OutputAssembler
from headrace_gateway.output.position import Offset
from headrace_gateway.request.generation import ChoiceEnded, Tokens


class Replay:
    """The news of a transcript, those that the reader has marked as heard."""

    def __init__(self, assembler: OutputAssembler, offsets: Sequence[Offset]) -> None:
        self._assembler, self._offsets = assembler, offsets
        self._behind = [offset.tokens for offset in offsets]
        """Tokens of each choice that the reader has and that have not come again yet."""

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
        """
        Raises:
            InvalidRequest: the answer is shorter than what the reader says to have.
        """
        replayed: list[ChoiceDelta] = []
        new: list[Tokens | ChoiceEnded] = []
        for event in events:
            rest: Tokens | ChoiceEnded | None = event
            if isinstance(event, Tokens) and (behind := self._behind[event.choice]):
                begin, rest = event.split(behind)
                replayed += self._take_replayed(begin)
            if rest is not None:
                new.append(rest)
        for delta in self._assembler.take(new):
            replayed += self._mark_end(delta)
        return replayed

    def _take_replayed(self, tokens: Tokens) -> list[ChoiceDelta]:
        delta = self._assembler.take([tokens])
        self._behind[tokens.choice] -= len(tokens.token_ids)
        return [part for each in delta for part in self._apart(each)]

    def _apart(self, delta: ChoiceDelta) -> list[ChoiceDelta]:
        """A stop string came with tokens that were heard; its end may not have been."""
        if delta.finish_reason == UNFINISHED:
            return [replace(delta, replayed=True)]
        end = ChoiceDelta(
            delta.choice, delta.end_index, finish_reason=delta.finish_reason, stopped=delta.stopped
        )
        tokens = replace(delta, replayed=True, finish_reason=UNFINISHED, stopped=False)
        return [tokens, *self._mark_end(end)]

    def _mark_end(self, delta: ChoiceDelta) -> list[ChoiceDelta]:
        offset = self._offsets[delta.choice]
        ended = delta.finish_reason != UNFINISHED
        if (delta.end_index < offset.tokens and ended) or (
            delta.end_index > offset.tokens and offset.ended
        ):
            raise InvalidRequest(
                f"the position says {offset.tokens} tokens{' and the end' if offset.ended else ''}"
                f" of choice {delta.choice}, which has {delta.end_index} tokens"
                f"{' in all' if ended else ' so far'}",
                field="after",
            )
        return [replace(delta, replayed=True) if offset.ended else delta]
