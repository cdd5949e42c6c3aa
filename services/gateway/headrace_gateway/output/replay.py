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

    def __init__(self, transcript: OutputAssembler, places: Sequence[Offset]) -> None:
        self._transcript, self._places = transcript, places
        self._behind = [place.tokens for place in places]
        """Tokens of each choice that the reader has and that have not come again yet."""

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
        """
        Raises:
            InvalidRequest: the answer is shorter than what the reader says to have.
        """
        heard: list[ChoiceDelta] = []
        new: list[Tokens | ChoiceEnded] = []
        for event in events:
            rest: Tokens | ChoiceEnded | None = event
            if isinstance(event, Tokens) and (behind := self._behind[event.choice]):
                begin, rest = event.split(behind)
                heard += self._hear(begin)
            if rest is not None:
                new.append(rest)
        for said in self._transcript.take(new):
            heard += self._mark_end(said)
        return heard

    def _hear(self, tokens: Tokens) -> list[ChoiceDelta]:
        said = self._transcript.take([tokens])
        self._behind[tokens.choice] -= len(tokens.token_ids)
        return [part for each in said for part in self._apart(each)]

    def _apart(self, said: ChoiceDelta) -> list[ChoiceDelta]:
        """A stop string came with tokens that were heard; its end may not have been."""
        if said.finish_reason == UNFINISHED:
            return [replace(said, heard=True)]
        end = ChoiceDelta(
            said.choice, said.seen, finish_reason=said.finish_reason, stopped=said.stopped
        )
        tokens = replace(said, heard=True, finish_reason=UNFINISHED, stopped=False)
        return [tokens, *self._mark_end(end)]

    def _mark_end(self, said: ChoiceDelta) -> list[ChoiceDelta]:
        place = self._places[said.choice]
        ended = said.finish_reason != UNFINISHED
        if (said.seen < place.tokens and ended) or (said.seen > place.tokens and place.ended):
            raise InvalidRequest(
                f"the position says {place.tokens} tokens{' and the end' if place.ended else ''}"
                f" of choice {said.choice}, which has {said.seen} tokens"
                f"{' in all' if ended else ' so far'}",
                field="after",
            )
        return [replace(said, heard=True) if place.ended else said]
