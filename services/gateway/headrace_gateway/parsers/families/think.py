"""Pure: reasoning between two marks, at the beginning of an output."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_gateway.parsers.pieces import Piece, Reasoning, begun


@dataclass(frozen=True, slots=True)
class ThinkMarks:
    begin: str
    end: str
    also_ends: tuple[str, ...] = ()
    """What ends the reasoning as well, and belongs to what follows: calls that begin within it."""
    assumed: bool = False
    """Outputs reason even where neither they nor the prompt have the first mark."""


class ThinkParser:
    """Splits an output into reasoning and content; a second part of reasoning is content.

    White space around the reasoning belongs to the marks.
    """

    def __init__(self, marks: ThinkMarks, *, begins_open: bool) -> None:
        """`begins_open`: the prompt ends within the reasoning."""
        self._marks = marks
        self._take = self._reasoning if begins_open else self._before
        self._held = ""
        self._may_reopen = begins_open
        """The prompt has opened it, and the model may open it again."""
        self._any = False
        """Some of the reasoning has been returned."""

    @property
    def reasons(self) -> bool:
        return self._take == self._reasoning

    def feed(self, text: str) -> list[Piece]:
        if self._take == self._content and not self._held:
            return [text] if text else []
        self._held += text
        pieces: list[Piece] = []
        while (piece := self._take()) is not None:
            pieces += piece
        return pieces

    def flush(self) -> list[Piece]:
        text, self._held = self._held, ""
        if self._take == self._reasoning:
            # White space at the end may be the beginning of nothing else.
            text = text if self._any else text.lstrip()
            return [Reasoning(text.rstrip())] if text.rstrip() else []
        return [text] if text and self._take != self._after else []

    # Each takes from the held text, and returns pieces; None if more text must come first.

    def _before(self) -> list[Piece] | None:
        begin, text = self._marks.begin, self._held.lstrip()
        if text.startswith(begin):
            self._held, self._take = text[len(begin) :], self._reasoning
            return []
        if begin.startswith(text):
            return None
        self._take = self._content
        return []

    def _reasoning(self) -> list[Piece] | None:
        if not self._any:
            self._held = self._held.lstrip()
        if self._may_reopen and self._held:
            begin = self._marks.begin
            if begin.startswith(self._held) and begin != self._held:
                return None
            self._held, self._may_reopen = self._held.removeprefix(begin).lstrip(), False
        found = self._first_end()
        if found is not None:
            place, skipped = found
            before, self._held = self._held[:place].rstrip(), self._held[place + skipped :]
            self._take = self._after
            return [Reasoning(before)] if before else []
        held = self._held
        marks = (self._marks.end, *self._marks.also_ends)
        free = len(held[: len(held) - max(begun(held, mark) for mark in marks)].rstrip())
        if not free:
            return None
        self._held, self._any = held[free:], True
        return [Reasoning(held[:free])]

    def _first_end(self) -> tuple[int, int] | None:
        """Return where the reasoning ends, and how much of the text is its mark."""
        ends = [(self._held.find(self._marks.end), len(self._marks.end))]
        ends += [(self._held.find(mark), 0) for mark in self._marks.also_ends]
        found = [each for each in ends if each[0] >= 0]
        return min(found) if found else None

    def _after(self) -> list[Piece] | None:
        text = self._held.lstrip()
        if not text:
            return None
        self._held, self._take = text, self._content
        return []

    def _content(self) -> list[Piece] | None:
        text, self._held = self._held, ""
        return [text] if text else None
