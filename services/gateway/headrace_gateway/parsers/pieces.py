"""Pure: what the parsers of a model's output make of it, piece by piece as it comes.

However a text is split between calls, the same pieces result when they are joined; what a parser
does not understand stays content, and nothing is lost.

    parser = ThinkParser(THINK, begins_open=False)
    parser.feed("<think>Hm, the sky")       [Reasoning("Hm, the sky")]
    parser.feed(".</think>\\n\\nBlue")        [Reasoning("."), "Blue"]
    parser.flush()                          []
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CallPiece:
    """News of one call of one choice."""

    index: int
    name: str | None
    """Set in the first piece of a call."""
    arguments: str
    call_id: str = ""
    """Set by the assembler, which knows the request, where `name` is."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A part of what the model writes before its answer."""

    text: str


Piece = str | Reasoning | CallPiece
"""Content, reasoning, or a part of a call."""


class Parser(Protocol):
    """Takes one choice's text apart. After `flush` it is at its end."""

    @property
    def reasons(self) -> bool:
        """Whether the text so far ends within reasoning."""
        ...

    def feed(self, text: str) -> list[Piece]: ...

    def flush(self) -> list[Piece]:
        """Return what was held back, as the text has ended."""
        ...


def begun(text: str, mark: str) -> int:
    """Return how many of the last characters may be the beginning of the mark."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0
