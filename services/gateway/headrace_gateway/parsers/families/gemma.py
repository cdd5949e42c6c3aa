"""Pure: the calls of Gemma's models.

Gemma 3         ```tool_code\\nprint(sky(town="Fernby"))\\n```
FunctionGemma   <start_function_call>call:sky{town:<escape>Fernby<escape>}<end_function_call>
Gemma 4         <|tool_call>call:sky{town:<|"|>Fernby<|"|>}<tool_call|>
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, ClassVar

from headrace_gateway.parsers.pieces import Piece
from headrace_gateway.parsers.scanning import CallScanner, loaded
from headrace_gateway.parsers.values import python_calls

_DEEPEST = 64
_FENCE = "\n```"
_PLAIN = re.compile(r"[^,\]}]*")
_KEY = re.compile(r"\s*+([^\s:{}\[\],][^:{}\[\],]*+):")
_SPACE = re.compile(r"\s*+")
_CALL = re.compile(r"\s*call:(?P<name>[^\s{]+)\s*(?=\{)")


class ToolCode(CallScanner):
    """Python in a fenced block, which is read once it is whole."""

    begins = ("```tool_code",)

    def _block(self) -> list[Piece] | None:
        if (place := self.next_end(_FENCE)) is None:
            return self.no_block() if self.hopeless else None
        pieces = self._read(self.held[:place])
        if not pieces:
            return self.no_block()
        self.close(self.held[place + len(_FENCE) :])
        return pieces

    def _end_block(self) -> list[Piece]:
        if pieces := self._read(self.held):
            self.close("")
            return pieces
        return self.no_block()

    def _read(self, body: str) -> list[Piece]:
        calls = python_calls(body.rstrip().removesuffix("```"))
        if calls is None or any(name not in self.schemas for name, _ in calls):
            return []
        return self.calls_with(calls)


class FunctionGemmaCalls(CallScanner):
    begins = ("<start_function_call>",)
    within = ("<end_function_call>", "<escape>")
    end: ClassVar[str] = "<end_function_call>"
    quote: ClassVar[str] = "<escape>"

    def _block(self) -> list[Piece] | None:
        while (place := self.next_end(self.end)) is not None:
            if pieces := self._read(self.held[:place]):
                self.close(self.held[place + len(self.end) :])
                return pieces
            self.end_failed()
        return self.no_block() if self.hopeless else None

    def _end_block(self) -> list[Piece]:
        if pieces := self._read(self.held):
            self.close("")
            return pieces
        return self.no_block()

    def _read(self, body: str) -> list[Piece]:
        match = _CALL.match(body)
        if match is None:
            return []
        try:
            value, end = _Reader(self.quote, body).value(match.end(), 0)
        except ValueError:
            return []
        return [] if body[end:].strip() else self.calls_with([(match["name"], value)])


class Gemma4Calls(FunctionGemmaCalls):
    begins = ("<|tool_call>",)
    within = ("<tool_call|>", '<|"|>')
    end = "<tool_call|>"
    quote = '<|"|>'


class _Reader:
    """Reads values: objects with bare keys, lists, texts in quotes of their own, JSON's others."""

    def __init__(self, quote: str, text: str) -> None:
        self._quote, self._text = quote, text

    def value(self, place: int, depth: int) -> tuple[Any, int]:
        """Return the value at this place, and the place behind it.

        Raises:
            ValueError: there is none.
        """
        text, place = self._text, self._behind_space(place)
        if depth > _DEEPEST:
            raise ValueError("too deep")
        if text.startswith("{", place):
            return self._object(place + 1, depth)
        if text.startswith("[", place):
            return self._list(place + 1, depth)
        if text.startswith(self._quote, place):
            begin = place + len(self._quote)
            end = text.index(self._quote, begin)
            return text[begin:end], end + len(self._quote)
        if text.startswith('"', place):
            return json.JSONDecoder().raw_decode(text, place)
        match = _PLAIN.match(text, place)
        assert match is not None
        return _plain(match[0].strip()), match.end()

    def _object(self, place: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        while not self._text.startswith("}", place := self._behind_space(place)):
            if (key := _KEY.match(self._text, place)) is None:
                raise ValueError("no key")
            name = key[1].rstrip().removeprefix(self._quote).removesuffix(self._quote).strip('"')
            found[name], place = self.value(key.end(), depth + 1)
            place = self._behind_comma(place, "}")
        return found, place + 1

    def _list(self, place: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        while not self._text.startswith("]", place := self._behind_space(place)):
            value, place = self.value(place, depth + 1)
            found.append(value)
            place = self._behind_comma(place, "]")
        return found, place + 1

    def _behind_space(self, place: int) -> int:
        match = _SPACE.match(self._text, place)
        assert match is not None
        return match.end()

    def _behind_comma(self, place: int, end: str) -> int:
        place = self._behind_space(place)
        if self._text.startswith(",", place):
            return place + 1
        if not self._text.startswith(end, place):
            raise ValueError("no comma")
        return place


def _plain(text: str) -> Any:
    if not text:
        raise ValueError("no value")
    names = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in names:
        return names[text.lower()]
    number = loaded(text)
    return number if isinstance(number, int | float) and abs(number) < math.inf else text
