"""Pure room: where in an answer a reader is, in words that any gateway understands.

For each choice the output tokens whose text has been said, `f` behind it once its end has
been said too, and nothing where not even its opening was: `12.7f`, `0.`, `31`. What is said
with so many tokens is determined (`assembler`), so a position does not depend on how the
output was cut into events, nor on who said it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.errors import InvalidRequest
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.generation_request import NAME

_PLACE = re.compile(r"(?:[0-9]{1,9}f?)?")


@dataclass(frozen=True, slots=True)
class Offset:
    """How much of one choice a reader has."""

    opened: bool = False
    tokens: int = 0
    ended: bool = False


BEGINNING = Offset()


@dataclass(frozen=True, slots=True)
class EventId:
    """Of a server-sent event: all up to it has been read. `<request id>:<position>`."""

    request_id: str
    position: str


def read_event_id(text: str, *, field: str) -> EventId:
    """
    Raises:
        InvalidRequest: no event of ours has such an id.
    """
    request_id, colon, position = text.partition(":")
    if not colon or not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"{field} {quoted(text)} is no id of an event of this mesh, <request id>:<position>",
            field=field,
        )
    return EventId(request_id, position)


def read_position(text: str, choices: int, *, field: str) -> list[Offset]:
    """One place for each choice; an empty text is the beginning.

    Raises:
        InvalidRequest: it is no position in an answer of so many choices.
    """
    if not text:
        return [BEGINNING] * choices
    parts = text.split(".")
    if len(parts) != choices or not all(map(_PLACE.fullmatch, parts)):
        shape = "a number of tokens, with an f behind it once the answer has ended"
        if choices > 1:
            shape = (
                f"{choices} numbers of tokens with dots between them, each with an f behind it"
                " once its choice has ended"
            )
        raise InvalidRequest(
            f"{field} says {quoted(text)}; a position in this answer is {shape}", field=field
        )
    return [Offset(bool(part), int(part.rstrip("f") or 0), part.endswith("f")) for part in parts]


class NoIds:
    """In place of `EventIds`, for a reader that did not ask for ids."""

    def opened(self, choice: int) -> str:
        return ""

    def after_tokens(self, choice: int, tokens: int, *, ended: bool = False) -> str:
        return ""


class EventIds:
    """The ids of one answer's events, as it is said."""

    def __init__(self, request_id: str, offsets: Iterable[Offset]) -> None:
        self._head = f"id: {request_id}:"
        self._offsets = [_written(offset) for offset in offsets]

    def opened(self, choice: int) -> str:
        """The line of an event that opens a choice."""
        self._offsets[choice] = self._offsets[choice] or "0"
        return self._line()

    def after_tokens(self, choice: int, tokens: int, *, ended: bool = False) -> str:
        """The line of an event up to which so many tokens of a choice are said."""
        self._offsets[choice] = f"{tokens}f" if ended else str(tokens)
        return self._line()

    def _line(self) -> str:
        return f"{self._head}{'.'.join(self._offsets)}\n"


def _written(offset: Offset) -> str:
    if not offset.opened:
        return ""
    return f"{offset.tokens}{'f' if offset.ended else ''}"
