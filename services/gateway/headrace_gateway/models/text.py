"""Pure: incremental detokenization, whole characters only, ended by stop strings.

However the ids are split between calls, the pieces add up to the same text: that of all ids decoded
at once, cut where the first stop string begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Decode = Callable[[list[int]], str]
"""Token ids to text, without special tokens."""

_REPLACEMENT = "�"
_LONGEST_CHARACTER = 4
"""Bytes of UTF-8, and so tokens that one character can be spread over."""


class Detokenizer:
    """Token ids of one sequence to characters.

    Why not `tokenizers.decoders.DecodeStream`: it does not return its rest, and
    bytes that never become a character make it keep all that follows and decode it
    again with every token; a caller's logit_bias is enough for that.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        """Ids of the piece returned last: some decoders join or strip spaces by what is before."""
        self._sent = 0
        """How many characters of the decoded context have been returned."""
        self._held: list[int] = []
        """Ids after the context; none of their text has been returned."""

    def feed(self, token_id: int) -> str:
        """Return the characters that this token completes; often none, sometimes several."""
        held = self._held
        held.append(token_id)
        text = self._decode(self._context + held)
        # Why: an incomplete character shows as U+FFFD at the end. One that stays incomplete
        # for longer than a character can be is broken bytes, and is not waited for.
        incomplete = text.endswith(_REPLACEMENT)
        overdue = len(held) > _LONGEST_CHARACTER
        if incomplete and not overdue:
            return ""
        piece = text[self._sent : len(text) - incomplete]
        if piece or incomplete:
            self._context, self._held = held, []
            self._sent = len(self._decode(held)) - incomplete
        elif overdue:
            held.clear()
        return piece

    def flush(self) -> str:
        """Return what is left at the end: an incomplete character, as U+FFFD."""
        text = self._decode(self._context + self._held)
        piece = text[self._sent :]
        self._context, self._held, self._sent = [], [], 0
        return piece


class StopStrings:
    """Finds the first of several strings in a text that comes in pieces (Aho-Corasick).

    The first is the one whose end comes first; of two that end together, the longer.
    That does not depend on how the text is cut into pieces. Immutable; shared by choices.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self.begun = [0]
        """By state: how many of the last characters may be the beginning of a stop string."""
        self.found = [0]
        """By state: the length of the longest stop string that ends there; 0 if none does."""
        for stop in stops:
            self._add(stop)
        self._fail = [0] * len(self._next)
        self._link()

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._next[state].get(character)
            if following is None:
                following = len(self._next)
                self._next.append({})
                self.begun.append(self.begun[state] + 1)
                self.found.append(0)
                self._next[state][character] = following
            state = following
        self.found[state] = self.begun[state]

    def _link(self) -> None:
        """Give each state the longest proper suffix of its text that is a state too."""
        states = deque(self._next[0].values())
        while states:
            state = states.popleft()
            for character, following in self._next[state].items():
                self._fail[following] = self.step(self._fail[state], character)
                self.found[following] = self.found[following] or self.found[self._fail[following]]
                states.append(following)

    def step(self, state: int, character: str) -> int:
        """Return the state after one more character; 0 is the first."""
        while True:
            following = self._next[state].get(character)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fail[state]


class _Cutter:
    """Ends text at a stop string, and holds back what may become one."""

    def __init__(self, stops: StopStrings, *, includes: bool) -> None:
        """`includes`: the stop string stays in the text."""
        self._stops, self._includes = stops, includes
        self._state = 0
        self._held = ""
        self.stop_string = ""
        """The one that was found; empty: none yet."""

    @property
    def stopped(self) -> bool:
        return bool(self.stop_string)

    def feed(self, piece: str) -> str:
        stops, state = self._stops, self._state
        text = self._held + piece
        for position, character in enumerate(piece, len(self._held) + 1):
            state = stops.step(state, character)
            if length := stops.found[state]:
                self.stop_string, self._held = text[position - length : position], ""
                return text[: position if self._includes else position - length]
        self._state = state
        free = len(text) - stops.begun[state]
        self._held = text[free:]
        return text[:free]

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    used: int
    """How many of the ids were read: all, or up to the one that completed the stop string."""
    stopped: bool


class TextStream:
    """The text of one choice. After a stop string, or `flush`, it is at its end."""

    def __init__(
        self,
        decode: Decode,
        *,
        stops: StopStrings | None,
        silent: frozenset[int],
        includes_stop: bool = False,
        unstopped_tokens: int = 0,
    ) -> None:
        """
        Args:
            silent: ids without text, such as those that end a sequence.
            unstopped_tokens: of so many tokens at the beginning the text has no stop strings.
        """
        self._detokenizer = Detokenizer(decode)
        self._cutter = _Cutter(stops, includes=includes_stop) if stops is not None else None
        self._silent = silent
        self._unstopped = unstopped_tokens

    @property
    def stop_string(self) -> str:
        """Return the stop string that ended the text; empty: none did."""
        return "" if self._cutter is None else self._cutter.stop_string

    def feed(self, token_ids: Sequence[int]) -> Piece:
        texts: list[str] = []
        for used, token_id in enumerate(token_ids, 1):
            self._unstopped -= 1
            if token_id in self._silent:
                continue
            text = self._detokenizer.feed(token_id)
            if self._cutter is not None and text and self._unstopped < 0:
                text = self._cutter.feed(text)
                if self._cutter.stopped:
                    return Piece("".join((*texts, text)), used, True)
            texts.append(text)
        return Piece("".join(texts), len(token_ids), False)

    def flush(self) -> str:
        """Return what was held back, for a sequence that has ended without a stop string."""
        text = self._detokenizer.flush()
        if self._cutter is None or self._unstopped > 0:
            return text
        text = self._cutter.feed(text)
        return text if self._cutter.stopped else text + self._cutter.flush()
