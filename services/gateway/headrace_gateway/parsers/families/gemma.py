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
from headrace_gateway.parsers.scanning import CallScanner, dumped, loaded
from headrace_gateway.parsers.values import python_calls

_DEEPEST = 64
_PLAIN = re.compile(r"[^,\]}]*")
_KEY = re.compile(r"\s*([^:{}\[\],]+?)\s*:")
_CALL = re.compile(r"\s*call:(?P<name>[^\s{]+)\s*(?=\{)")


class ToolCode(CallScanner):
    """Python in a fenced block, which is read once it is whole."""

    begins = ("```tool_code",)

    def _block(self) -> list[Piece] | None:
        body, found, after = self.held.partition("\n```")
        if not found:
            return None
        pieces = self._read(body)
        if not pieces:
            return self.no_block()
        self.close(after)
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
        return [piece for name, each in calls for piece in self.call(name, dumped(each))]


class FunctionGemmaCalls(CallScanner):
    begins = ("<start_function_call>",)
    within = ("<end_function_call>", "<escape>")
    end: ClassVar[str] = "<end_function_call>"
    quote: ClassVar[str] = "<escape>"

    def _block(self) -> list[Piece] | None:
        for match in re.finditer(re.escape(self.end), self.held):
            if pieces := self._read(self.held[: match.start()]):
                self.close(self.held[match.end() :])
                return pieces
        return None

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
            value, rest = _Reader(self.quote).value(body[match.end() :], 0)
        except ValueError:
            return []
        return [] if rest.strip() else self.call(match["name"], dumped(value))


class Gemma4Calls(FunctionGemmaCalls):
    begins = ("<|tool_call>",)
    within = ("<tool_call|>", '<|"|>')
    end = "<tool_call|>"
    quote = '<|"|>'


class _Reader:
    """Reads values: objects with bare keys, lists, texts in quotes of their own, JSON's others."""

    def __init__(self, quote: str) -> None:
        self._quote = quote

    def value(self, text: str, depth: int) -> tuple[Any, str]:
        """Return a value and what follows it.

        Raises:
            ValueError: there is none.
        """
        text = text.lstrip()
        if depth > _DEEPEST:
            raise ValueError("too deep")
        if text.startswith("{"):
            return self._object(text[1:], depth)
        if text.startswith("["):
            return self._list(text[1:], depth)
        if text.startswith(self._quote):
            body, found, rest = text[len(self._quote) :].partition(self._quote)
            if not found:
                raise ValueError("a text without an end")
            return body, rest
        if text.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(text)
            return value, text[end:]
        match = _PLAIN.match(text)
        assert match is not None
        return _plain(match[0].strip()), text[match.end() :]

    def _object(self, text: str, depth: int) -> tuple[dict[str, Any], str]:
        found: dict[str, Any] = {}
        while not text.lstrip().startswith("}"):
            if (key := _KEY.match(text)) is None:
                raise ValueError("no key")
            name = key[1].removeprefix(self._quote).removesuffix(self._quote).strip('"')
            found[name], text = self.value(text[key.end() :], depth + 1)
            text = _after_comma(text, "}")
        return found, text.lstrip()[1:]

    def _list(self, text: str, depth: int) -> tuple[list[Any], str]:
        found: list[Any] = []
        while not text.lstrip().startswith("]"):
            value, text = self.value(text, depth + 1)
            found.append(value)
            text = _after_comma(text, "]")
        return found, text.lstrip()[1:]


def _after_comma(text: str, end: str) -> str:
    text = text.lstrip()
    if text.startswith(","):
        return text[1:]
    if not text.startswith(end):
        raise ValueError("no comma")
    return text


def _plain(text: str) -> Any:
    if not text:
        raise ValueError("no value")
    names = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in names:
        return names[text.lower()]
    number = loaded(text)
    return number if isinstance(number, int | float) and abs(number) < math.inf else text
