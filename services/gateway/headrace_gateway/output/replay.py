"""Pure: resumes an answer for a client that already has a part of it.

All output is fed to the assembler again from its beginning, so that held-back text, tool calls and
stop strings stand where they stood. Deltas that the client has are marked `replayed`; the API does
not send them. A client reconnects with the event id `req_7:3`, that is offset 3 of the only choice:

    events                          deltas
    Tokens(0, 0, [5, 6, 7, 8])      first_index 0, ids 5 6 7, replayed
                                    first_index 3, id 8            the client gets id: req_7:4
    ChoiceEnded(0, STOP)            first_index 4, STOP            the client gets id: req_7:4f

With `req_7:9` it is an error: the answer ended after 4 tokens, which is fewer than 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headrace.errors import InvalidRequest
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta, OutputAssembler
from headrace_gateway.output.position import Offset
from headrace_gateway.request.generation import ChoiceEnded, Tokens


class Replay:
    """An assembler whose deltas are marked as replayed where the client has them."""

    def __init__(self, assembler: OutputAssembler, offsets: Sequence[Offset]) -> None:
        self._assembler, self._offsets = assembler, offsets
        self._behind = [offset.tokens for offset in offsets]
        """Tokens of each choice that the client has and that are not replayed yet."""

    def take(self, events: Iterable[Tokens | ChoiceEnded]) -> list[ChoiceDelta]:
        """
        Raises:
            InvalidRequest: the answer is shorter than the position claims.
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
        """Split off the end: the client may have the tokens of a stop string, and not its end."""
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
