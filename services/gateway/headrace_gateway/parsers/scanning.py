"""Pure: what all parsers of calls share: marks in a text, and what is held back for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from headrace_gateway.parsers.pieces import CallPiece, Piece, begun

Schemas = Mapping[str, Mapping[str, Any]]
"""Names of the tools that are offered to the schemas of their parameters."""


class CallScanner:
    """Content up to a mark, then a block that is a call or proves to be none.

    White space between calls belongs to the format. A subclass has a `_block` state, which looks at
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
        self._marks = (*self.begins, *self.dropped)

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
            pieces += [piece for piece in self._end_block() if piece != ""]
            pieces += self._taken()
        if not (self.calls and not self.held.strip()) and self.held:
            pieces.append(self.held)
        self.held = ""
        return pieces

    def _taken(self) -> list[Piece]:
        pieces: list[Piece] = []
        while (found := self.take()) is not None:
            pieces += [piece for piece in found if piece != ""]
        return pieces

    def _content(self) -> list[Piece] | None:
        found = [(place, mark) for mark in self._marks if (place := self.held.find(mark)) >= 0]
        if found:
            place, mark = min(found, key=lambda each: (each[0], -len(each[1])))
            before, self.held = self.held[:place], self.held[place + len(mark) :]
            if mark in self.begins:
                self.begin, self.take = mark, self._block
            return [before] if before.strip() or not self.calls else []
        free = len(self.held) - max((begun(self.held, mark) for mark in self._marks), default=0)
        if not free or (self.calls and not self.held[:free].strip()):
            return None
        content, self.held = self.held[:free], self.held[free:]
        return [content]

    def _block(self) -> list[Piece] | None:
        raise NotImplementedError

    def _end_block(self) -> list[Piece]:
        """Return pieces of a block that the text ends within, and go back to content.

        Unless a subclass knows better it is none: its mark is content, and the rest is read again.
        """
        return self.no_block()

    def no_block(self) -> list[Piece]:
        """Take the block for content: its mark, and what follows is searched for others."""
        mark, self.begin, self.take = self.begin, "", self._content
        return [mark]

    def close(self, rest: str) -> None:
        """Go on after a block."""
        self.held, self.begin, self.take = rest, "", self._content

    def call(self, name: str, arguments: str = "") -> list[Piece]:
        """Return the pieces of a new call."""
        self.calls += 1
        index = self.calls - 1
        return [
            CallPiece(index, name, ""),
            *([CallPiece(index, None, arguments)] * bool(arguments)),
        ]

    def more(self, arguments: str) -> list[Piece]:
        """Return a part of the arguments of the newest call."""
        return [CallPiece(self.calls - 1, None, arguments)]


class JsonValue:
    """Finds the end of a JSON object or list that comes in parts."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False

    def end(self, text: str) -> int | None:
        """Return where it ends in this part; None if it goes on."""
        for position, character in enumerate(text, 1):
            self._follow(character)
            if self._depth == 0:
                return position
        return None

    def _follow(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1


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
        ValueError: a number is too large for it.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
