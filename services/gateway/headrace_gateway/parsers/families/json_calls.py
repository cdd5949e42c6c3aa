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
from headrace_gateway.parsers.scanning import HEAD, CallScanner, call_in, loaded


class JsonCalls(CallScanner):
    """A subclass says what a call begins and ends with."""

    end: ClassVar[str]
    head: ClassVar[re.Pattern[str]]
    """From the mark to the arguments; its group `name` is the name, or a JSON string of it."""
    bare: ClassVar[re.Pattern[str] | None] = None
    """A whole call without arguments."""
    tail: ClassVar[str] = ""
    """What may follow the arguments, within white space, before the end."""

    def _block(self) -> list[Piece] | None:
        match = self.head.match(self.held, 0, HEAD)
        if match and (name := _name(match["name"])) is not None:
            if not self.offers(name):
                return self.no_block()
            self.held, self.take = self.held[match.end() :], self._arguments
            return self.call(name)
        if (place := self.next_end(self.end)) is None:
            return self.no_block() if self.hopeless else None
        if pieces := self._whole(self.held[:place]):
            self.close(self.held[place + len(self.end) :])
            return pieces
        return self.no_block()

    def _arguments(self) -> list[Piece] | None:
        text, self.held = self.held, ""
        if not text:
            return None
        if (end := self.value.end(text)) is None:
            return self.more(text)
        self.held, self.take = text[end:], self._after
        return self.more(text[:end])

    def _after(self) -> list[Piece] | None:
        """Look for the end; where it is missing, the next call or other text ends this one."""
        # A mark that begins within the bound is whole soon behind it.
        bound = HEAD + max(map(len, (self.end, *self.begins)))
        places = [self.held.find(mark, 0, bound) for mark in (self.end, *self.begins)]
        found = [place for place in places if place >= 0]
        if not found and len(self.held) >= bound:
            self.close(self.held.lstrip().removeprefix(self.tail))
            return []
        if not found:
            return None
        rest, after = self.held[: min(found)], self.held[min(found) :]
        self.close(after.removeprefix(self.end))
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
        is_short = len(body) <= HEAD
        if is_short and self.bare is not None and (match := self.bare.fullmatch(body)):
            return self.call(match["name"].strip(), "{}")
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
        r"\s*+(?:function<｜tool▁sep｜>)?(?P<name>[^\s<`｜{][^<\n`｜{]*+)\s*+"
        r"(?:<｜tool▁sep｜>|```json)\s*+(?=\{)"
    )
    bare = re.compile(
        r"\s*+(?:function<｜tool▁sep｜>)?(?P<name>[^\s<`｜{][^<\n`｜{]*+)\s*+(?:<｜tool▁sep｜>)?\s*+"
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
        return text.strip()
    try:
        return str(json.loads(text))
    except ValueError:
        return None
