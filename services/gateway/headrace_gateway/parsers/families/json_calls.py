"""Pure: calls between marks whose arguments are JSON: Hermes, DeepSeek, Kimi.

    Hermes    <tool_call>{"name": "sky", "arguments": {"town": "Fernby"}}</tool_call>
    DeepSeek  <｜tool▁call▁begin｜>sky<｜tool▁sep｜>{...}<｜tool▁call▁end｜>
              and before V3.1: function<｜tool▁sep｜>sky, then a fenced block of JSON
    Kimi      <|tool_call_begin|>functions.sky:0<|tool_call_argument_begin|>{}<|tool_call_end|>

The name is sent as soon as the arguments begin, and those as they come.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from headrace_gateway.parsers.pieces import Piece
from headrace_gateway.parsers.scanning import CallScanner, JsonValue, Schemas, call_in, loaded


class JsonCalls(CallScanner):
    """A subclass says what a call begins and ends with."""

    end: ClassVar[str]
    head: ClassVar[re.Pattern[str]]
    """From the mark to the arguments; its group `name` is the name, or a JSON string of it."""
    bare: ClassVar[re.Pattern[str] | None] = None
    """A whole call without arguments."""
    tail: ClassVar[str] = ""
    """What may follow the arguments, within white space, before the end."""

    def __init__(self, schemas: Schemas) -> None:
        super().__init__(schemas)
        self._value = JsonValue()

    def _block(self) -> list[Piece] | None:
        match = self.head.match(self.held)
        if match and (name := _name(match["name"])) is not None:
            self.held, self.take = self.held[match.end() :], self._arguments
            self._value = JsonValue()
            return self.call(name)
        body, found, after = self.held.partition(self.end)
        if not found:
            return None
        pieces = self._whole(body) or [self.begin + body + self.end]
        self.close(after)
        return pieces

    def _arguments(self) -> list[Piece] | None:
        text, self.held = self.held, ""
        if not text:
            return None
        if (end := self._value.end(text)) is None:
            return self.more(text)
        self.held, self.take = text[end:], self._after
        return self.more(text[:end])

    def _after(self) -> list[Piece] | None:
        rest, found, after = self.held.partition(self.end)
        if not found:
            return None
        self.close(after)
        return [self._rest(rest)]

    def _rest(self, rest: str) -> str:
        return rest.strip().removeprefix(self.tail).strip()

    def _end_block(self) -> list[Piece]:
        text = self.held
        if self.take == self._block and not (pieces := self._whole(text)):
            return self.no_block()
        if self.take == self._after:
            rest = self._rest(text)
            pieces = [] if self.end.startswith(rest) else [rest]
        elif self.take == self._arguments:
            pieces = []
        # Some models end without closing what they wrote.
        self.close("")
        return pieces

    def _whole(self, body: str) -> list[Piece]:
        """Return the call that a body is, if it is one that `head` does not match."""
        if self.bare is not None and (match := self.bare.fullmatch(body)):
            return self.call(match["name"], "{}")
        found = call_in(loaded(body))
        return [] if found is None else self.call(*found)


class HermesCalls(JsonCalls):
    begins = ("<tool_call>",)
    within = ("</tool_call>",)
    end = "</tool_call>"
    head = re.compile(
        r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)',
        re.DOTALL,
    )
    tail = "}"


class DeepseekCalls(JsonCalls):
    begins = ("<｜tool▁call▁begin｜>",)
    dropped = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    within = ("<｜tool▁sep｜>", "<｜tool▁call▁end｜>")
    end = "<｜tool▁call▁end｜>"
    head = re.compile(
        r"\s*(?:function<｜tool▁sep｜>)?(?P<name>[^<\n`｜{]+?)\s*"
        r"(?:<｜tool▁sep｜>|\n```json)\s*(?=\{)"
    )
    bare = re.compile(
        r"\s*(?:function<｜tool▁sep｜>)?(?P<name>[^<\n`｜{]+?)\s*(?:<｜tool▁sep｜>)?\s*"
    )
    tail = "```"


class KimiCalls(JsonCalls):
    begins = ("<|tool_call_begin|>",)
    dropped = (
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        *("<|tool_call_section_begin|>", "<|tool_call_section_end|>"),
    )
    within = ("<|tool_call_argument_begin|>", "<|tool_call_end|>")
    end = "<|tool_call_end|>"
    _ID = r"\s*(?:functions\.)?(?P<name>[^\s<:{]+?)(?::\d+)?\s*"
    head = re.compile(_ID + r"<\|tool_call_argument_begin\|>\s*(?=\{)")
    bare = re.compile(_ID + r"(?:<\|tool_call_argument_begin\|>\s*)?")


def _name(text: str) -> str | None:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return None
