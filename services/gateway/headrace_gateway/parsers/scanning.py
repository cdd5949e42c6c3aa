"""Pure: what all parsers of calls share: marks in a text, and what is held back for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headrace_gateway.parsers.pieces import CallPiece, Piece, begun

Schemas = Mapping[str, Mapping[str, Any]]
"""Names of the tools that are offered to the schemas of their parameters."""

# Why bounds: parsers run where all requests are served, and read again what they hold.
HEAD = 256
"""Characters that a call has up to its arguments, at most."""
LONGEST_BLOCK = 1 << 18
"""Characters of a call that is read once it is whole, at most."""
MOST_FAILURES = 32
"""Readings of blocks that were no calls; what follows so many is content."""


class CallScanner:
    """Content up to a mark, then a block that is a call or proves to be none.

    White space between calls belongs to the format. A call names a tool that is offered; what calls
    another is content. A subclass has a `_block` state, which looks at
    `held` and returns pieces, or None if more text must come first.
    """

    begins: tuple[str, ...] = ()
    """Marks that begin a block."""
    dropped: tuple[str, ...] = ()
    """Marks around blocks, which are no content."""
    within: tuple[str, ...] = ()
    """Marks within blocks."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self.held = ""
        """Not sent yet: it may be part of a mark, or of a call that may prove to be none."""
        self.calls = 0
        self.begin = ""
        """The mark of the block that is being read."""
        self.take: Callable[[], list[Piece] | None] = self._content
        self.value = JsonValue()
        """The list or object that the block is, or has."""
        self._marks = (*self.begins, *self.dropped)
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._any_mark = re.compile("|".join(map(re.escape, longest_first)))
        self._spaced = ""
        """White space between a call and this block, which goes with the block."""
        self._after_call = False
        """No text but white space has followed the newest call."""
        self._blank = 0
        """Up to where `held` is white space behind a call."""
        self._sought = 0
        """Up to where `next_end` has read `held`."""
        self._failures = 0

    @property
    def reasons(self) -> bool:
        return False

    def feed(self, text: str) -> list[Piece]:
        self.held += text
        return self._taken()

    def flush(self) -> list[Piece]:
        """Return what was held back, as the text has ended."""
        pieces: list[Piece] = []
        while self.take != self._content:
            pieces += self._noted(self._end_block())
            pieces += self._taken()
        if self.held and not (self._after_call and not self.held.strip()):
            pieces.append(self.held)
        self.held = ""
        return pieces

    def _taken(self) -> list[Piece]:
        pieces: list[Piece] = []
        while (found := self.take()) is not None:
            pieces += self._noted(found)
        return pieces

    def _noted(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            if not isinstance(piece, str):
                self._after_call = isinstance(piece, CallPiece)
            elif piece.strip():
                self._after_call = False
        return [piece for piece in pieces if piece != ""]

    def _content(self) -> list[Piece] | None:
        seeks = self._marks and not self._gives_up
        found = self._any_mark.search(self.held, self._blank) if seeks else None
        if found:
            self._blank = 0
            before, self.held = self.held[: found.start()], self.held[found.end() :]
            is_between = self._after_call and not before.strip()
            if found[0] in self.begins:
                self.open(found[0])
                self._spaced = before if is_between else ""
            return [] if is_between else [before]
        free = len(self.held) - max((begun(self.held, mark) for mark in self._marks), default=0)
        if not free:
            return None
        if self._after_call and not self.held[self._blank : free].strip():
            self._blank = free
            return None
        self._blank = 0
        content, self.held = self.held[:free], self.held[free:]
        return [content]

    def open(self, begin: str) -> None:
        """Begin a block."""
        self.begin, self.take = begin, self._block
        self._sought, self.value, self._spaced = 0, JsonValue(), ""

    def _block(self) -> list[Piece] | None:
        raise NotImplementedError

    def _end_block(self) -> list[Piece]:
        """Return pieces of a block that the text ends within, and go back to content.

        Unless a subclass knows better it is none: its mark is content, and the rest is read again.
        """
        return self.no_block()

    def no_block(self) -> list[Piece]:
        """Take the block for content: its mark, and what follows is searched for others."""
        text, self.begin, self.take = self._spaced + self.begin, "", self._content
        self._failures += 1
        return [text]

    def next_end(self, mark: str) -> int | None:
        """Return where the next mark is that may end the block; each is returned once.

        None if more text must come first, or if there is no hope: see `hopeless`.
        """
        if self.hopeless:
            return None
        place = self.held.find(mark, self._sought)
        if place < 0:
            self._sought = max(self._sought, len(self.held) - len(mark) + 1)
            return None
        self._sought = place + len(mark)
        return place if place <= LONGEST_BLOCK else None

    def end_failed(self) -> None:
        """The block, up to an end, was no call."""
        self._failures += 1

    @property
    def hopeless(self) -> bool:
        """Whether the block is too long for a call, or has been read too often."""
        return self._sought > LONGEST_BLOCK or self._gives_up

    @property
    def _gives_up(self) -> bool:
        return self._failures >= MOST_FAILURES

    def close(self, rest: str) -> None:
        """Go on after a block."""
        self.held, self.begin, self.take, self._blank = rest, "", self._content, 0

    def offers(self, name: str) -> bool:
        return name in self.schemas or not self.schemas

    def call(self, name: str, arguments: str = "") -> list[Piece]:
        """Return the pieces of a new call; none if its tool is not offered."""
        if not self.offers(name):
            return []
        self.calls += 1
        index = self.calls - 1
        return [
            CallPiece(index, well_formed(name), ""),
            *([CallPiece(index, None, arguments)] * bool(arguments)),
        ]

    def calls_with(self, calls: Iterable[tuple[str, object]]) -> list[Piece]:
        """Return the pieces of new calls; none if one is not offered, or JSON cannot have it."""
        try:
            written = [(name, dumped(values)) for name, values in calls]
        except ValueError:
            return []
        if not all(self.offers(name) for name, _ in written):
            return []
        return [piece for each in written for piece in self.call(*each)]

    def more(self, arguments: str) -> list[Piece]:
        """Return a part of the arguments of the newest call."""
        return [CallPiece(self.calls - 1, None, arguments)]


class JsonValue:
    """Finds the end of a JSON object or list that comes in parts."""

    quotes, opens, closes = '"', "{[", "}]"

    def __init__(self) -> None:
        self._depth = self._read = 0
        self._quote = ""
        self._escaped = False

    def end(self, text: str) -> int | None:
        """Return where it ends in this part; None if it goes on."""
        for position, character in enumerate(text, 1):
            self._follow(character)
            if self._depth == 0:
                return position
        return None

    def end_within(self, text: str) -> int | None:
        """Return where it ends in all of it, which is more than at the last call."""
        read, self._read = self._read, len(text)
        found = self.end(text[read:])
        return None if found is None else read + found

    def _follow(self, character: str) -> None:
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == self._quote:
                self._quote = ""
        elif character in self.quotes:
            self._quote = character
        elif character in self.opens:
            self._depth += 1
        elif character in self.closes:
            self._depth -= 1


class PythonList(JsonValue):
    """The same of a list as Python writes it."""

    quotes, opens, closes = "\"'", "{[(", "}])"


def call_in(value: object) -> tuple[str, str] | None:
    """Return name and arguments of a call that is a JSON object, in whatever order."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # Some models write the arguments as a text of JSON.
        arguments = loaded(arguments)
    if not isinstance(arguments, dict):
        return None
    try:
        return value["name"], dumped(arguments)
    except ValueError:
        return None


def loaded(text: str) -> Any:
    """Return the value of a JSON text; None if it is none."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def dumped(value: object) -> str:
    """Return JSON text.

    Raises:
        ValueError: a number is too large for it, or it is nested too deep.
    """
    try:
        return well_formed(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def well_formed(text: str) -> str:
    """Return the text without halves of characters, which JSON and Python can escape."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
