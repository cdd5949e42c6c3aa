"""Pure: the position of a client in an answer, as its event ids carry it.

A position has one offset for each choice, with dots between. An offset is the number of output
tokens whose text has been sent, followed by `f` once the end has been sent; it is empty before the
first event of the choice. For an answer of two choices:

    id: req_7:.          nothing was sent
    id: req_7:0.         the first choice was opened (its role was sent)
    id: req_7:3.0        3 tokens of the first choice, the second was opened
    id: req_7:12f.7      the first choice ended after 12 tokens, the second is at 7

The text of so many tokens is always the same (`assembler`), so a position means the same at every
gateway, however the output was cut into events.
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
    """The part of one choice that a client has."""

    opened: bool = False
    tokens: int = 0
    ended: bool = False


BEGINNING = Offset()


@dataclass(frozen=True, slots=True)
class EventId:
    """The id of a server-sent event, `<request id>:<position>`; the client has all up to it."""

    request_id: str
    position: str


def read_event_id(text: str, *, field: str) -> EventId:
    """
    Raises:
        InvalidRequest: the text is not such an id.
    """
    request_id, colon, position = text.partition(":")
    if not colon or not NAME.fullmatch(request_id):
        raise InvalidRequest(
            f"{field} {quoted(text)} is not an event id, <request id>:<position>",
            field=field,
        )
    return EventId(request_id, position)


def read_position(text: str, choices: int, *, field: str) -> list[Offset]:
    """Return an offset for each choice; the text may lack the last ones, which have not begun.

    Raises:
        InvalidRequest: it is no position in an answer of so many choices.
    """
    if not text:
        return [BEGINNING] * choices
    parts = text.split(".")
    # A client that did not send the request knows of choices only once they have events.
    parts += [""] * (choices - len(parts))
    if len(parts) != choices or not all(map(_PLACE.fullmatch, parts)):
        shape = "a number of tokens, with an f behind it once the answer has ended"
        if choices > 1:
            shape = (
                f"{choices} numbers of tokens with dots between them, each with an f behind it"
                " once its choice has ended"
            )
        raise InvalidRequest(
            f"{field} is {quoted(text)}; a position in this answer is {shape}", field=field
        )
    return [Offset(bool(part), int(part.rstrip("f") or 0), part.endswith("f")) for part in parts]


class NoIds:
    """In place of `EventIds` in a stream without ids."""

    def opened(self, choice: int) -> str:
        return ""

    def after_tokens(self, choice: int, tokens: int, *, ended: bool = False) -> str:
        return ""


class EventIds:
    """Makes the ids of one answer's events."""

    def __init__(self, request_id: str, offsets: Iterable[Offset]) -> None:
        self._head = f"id: {request_id}:"
        self._offsets = [_written(offset) for offset in offsets]

    def opened(self, choice: int) -> str:
        """Return the id line of the event that opens a choice."""
        self._offsets[choice] = self._offsets[choice] or "0"
        return self._line()

    def after_tokens(self, choice: int, tokens: int, *, ended: bool = False) -> str:
        """Return the id line of the event after which so many tokens of a choice have been sent."""
        self._offsets[choice] = f"{tokens}f" if ended else str(tokens)
        return self._line()

    def _line(self) -> str:
        return f"{self._head}{'.'.join(self._offsets)}\n"


def _written(offset: Offset) -> str:
    if not offset.opened:
        return ""
    return f"{offset.tokens}{'f' if offset.ended else ''}"
