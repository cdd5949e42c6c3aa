"""Pure: finds tool calls in a model's output, piece by piece as it comes.

The format is Hermes's: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, with or without
white space inside. However the text is split into pieces, the same calls and content result; what
is not a tool call stays content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from headrace_gateway.parsers.pieces import CallPiece, Piece, begun

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)+")\s*,\s*"arguments"\s*:\s*(?=\{)', re.DOTALL
)


class HermesCalls:
    """Takes one choice's text apart. After `flush` it is at its end."""

    def __init__(self) -> None:
        self._take = self._content
        self._held = ""
        """Not sent yet: it may be part of a tag, or of a call that may prove to be none."""
        self._calls = 0
        self._depth = 0
        self._in_string = self._escaped = False

    @property
    def reasons(self) -> bool:
        return False

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while (piece := self._take()) is not None:
            pieces += [part for part in piece if part != ""]
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back, as the text has ended."""
        text, self._held = self._held, ""
        if self._take == self._head:
            # Some models end without closing what they wrote.
            return [*self._whole(text)] or [_OPEN + text]
        if self._take == self._content and self._calls and not text.strip():
            return []
        if self._take == self._tail:
            rest = text.strip().removeprefix("}").strip()
            return [] if _CLOSE.startswith(rest) else [rest]
        return [text] if text else []

    # Each takes from the held text, and returns pieces; None if more text must come first.

    def _content(self) -> list[Piece] | None:
        before, found, after = self._held.partition(_OPEN)
        if found:
            self._held, self._take = after, self._head
            return [before] if before.strip() or not self._calls else []
        free = len(before) - begun(before, _OPEN)
        if self._calls and not before[:free].strip():
            # White space between calls belongs to the format.
            return None
        self._held = before[free:]
        return [before[:free]] if free else None

    def _head(self) -> list[Piece] | None:
        match = _HEAD.match(self._held)
        if match:
            name = _name(match.group(1))
            if name is not None:
                self._held, self._take = self._held[match.end() :], self._arguments
                self._calls += 1
                return [CallPiece(self._calls - 1, name, "")]
        body, found, after = self._held.partition(_CLOSE)
        if not found:
            return None
        self._held, self._take = after, self._content
        return [*self._whole(body)] or [_OPEN + body + _CLOSE]

    def _arguments(self) -> list[Piece] | None:
        """Up to the bracket that closes the first one."""
        text = self._held
        if not text:
            return None
        for position, character in enumerate(text, 1):
            self._follow(character)
            if self._depth == 0:
                self._held, self._take = text[position:], self._tail
                return [CallPiece(self._calls - 1, None, text[:position])]
        self._held = ""
        return [CallPiece(self._calls - 1, None, text)]

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

    def _tail(self) -> list[Piece] | None:
        rest, found, after = self._held.partition(_CLOSE)
        if not found:
            return None
        self._held, self._take = after, self._content
        rest = rest.strip().removeprefix("}").strip()
        return [rest] if rest else []

    def _whole(self, body: str) -> Iterator[Piece]:
        """Yield the call that a body is, whatever the order of its keys; nothing if it is none."""
        try:
            value: Any = json.loads(body)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return
        arguments = value.get("arguments", {})
        if isinstance(arguments, dict):
            self._calls += 1
            yield CallPiece(self._calls - 1, value["name"], json.dumps(arguments))


def _name(literal: str) -> str | None:
    try:
        return str(json.loads(literal))
    except ValueError:
        return None
