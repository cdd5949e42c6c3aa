"""Pure: gpt-oss's harmony: messages with a channel, and calls that are messages to a function.

    <|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>commentary
     to=functions.sky <|constrain|>json<|message|>{"town": "Fernby"}<|call|>
    <|start|>assistant<|channel|>final<|message|>Blue.<|return|>

The prompt ends with `<|start|>assistant`, so an output begins within a header.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from headrace_gateway.parsers.pieces import Piece, Reasoning, begun
from headrace_gateway.parsers.scanning import HEAD, CallScanner, Schemas

MESSAGE = "<|message|>"
MARKS = ("<|channel|>", "<|constrain|>", MESSAGE, "<|start|>", "<|end|>", "<|call|>", "<|return|>")
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_BEGINS = ("<|channel|>", "<|start|>", "to=", MESSAGE)
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_CUT_HEADER = re.compile(
    r"\s*+(?:<\|start\|>)?+(?:assistant)?+\s*+(?:to=[^\s<]*+\s*+)?+<?\|?[a-z]*+\|?>?[a-z]*+"
    r"\s*+(?:to=[^\s<]*+\s*+)?+(?:<\|constrain\|>)?+\s*+[a-z]{0,4}+\s*+(?:<\|?[a-z]*+\|?)?+"
)
_HEADER = re.compile(
    r"\s*+(?:<\|start\|>)?+\s*+(?!to=)[\w.]*+\s*+(?:to=[^\s<]++\s*+)?+"
    r"(?:<\|channel\|>\s*+(?!to=)\w*+\s*+)?+(?:to=[^\s<]++\s*+)?+"
    r"(?:<\|constrain\|>)?+\s*+\w*+\s*+"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser(CallScanner):
    """`searches`: whether messages to functions are calls; otherwise they are content."""

    def __init__(self, schemas: Schemas, *, searches: bool, reasoning: bool) -> None:
        super().__init__(schemas)
        self._searches, self._splits = searches, reasoning
        self._as: Callable[[str], list[Piece]] = self._text
        """Makes pieces of the message that is being read."""
        self._first = True
        self._ended_by = ""
        """The mark before the header that is being read."""
        self.take = self._header

    @property
    def reasons(self) -> bool:
        return self.take == self._message and self._as == self._thought

    def _header(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if self._first and not any(
            text.startswith(mark) or mark.startswith(text) for mark in _BEGINS
        ):
            # No message: what a grammar has held the whole output to.
            self._as, self.take = self._text, self._message
            return []
        place = self.held.find(MESSAGE, 0, HEAD)
        if place < 0 and len(self.held) < HEAD:
            return None
        header = self.held[: max(place, 0)]
        if place < 0 or not _HEADER.fullmatch(header):
            return self._no_header()
        self._first = False
        self.held, self.take = self.held[place + len(MESSAGE) :], self._message
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient and self._searches and self.offers(recipient[1]):
            self._as = self.more
            return self.call(recipient[1])
        # What calls a function that is not offered is content, as with all parsers.
        is_function = self._searches and "to=functions." in header
        is_thought = recipient or (channel and channel[1] == "analysis")
        self._as = self._thought if is_thought and self._splits and not is_function else self._text
        return []

    def _no_header(self) -> list[Piece]:
        """Go on with the message: its end is none, as no other follows."""
        mark, self._ended_by, self._first = self._ended_by, "", False
        self.take = self._message
        if self._as == self.more:
            self._as = self._text
        return self._as(mark) if mark else []

    def _message(self) -> list[Piece] | None:
        found = [(place, mark) for mark in _ENDS if (place := self.held.find(mark)) >= 0]
        if found:
            place, mark = min(found)
            body, self.held = self.held[:place], self.held[place + len(mark) :]
            self.take, self._ended_by = self._header, mark
            return self._as(body) if body else []
        free = len(self.held) - max(begun(self.held, mark) for mark in _ENDS)
        if not free:
            return None
        body, self.held = self.held[:free], self.held[free:]
        return self._as(body)

    def _end_block(self) -> list[Piece]:
        text, self.held = self.held, ""
        was_message = self.take == self._message
        self.take = self._content
        if was_message:
            return self._as(text) if text else []
        # The beginning of a header, which the end cut, is no content.
        if not text.strip() or _is_cut_header(text):
            return []
        return [self._ended_by + text]

    def _text(self, body: str) -> list[Piece]:
        return [body]

    def _thought(self, body: str) -> list[Piece]:
        return [Reasoning(body)]


def _is_cut_header(text: str) -> bool:
    return len(text) <= HEAD and _CUT_HEADER.fullmatch(text) is not None
