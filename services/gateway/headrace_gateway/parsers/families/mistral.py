"""Pure: Mistral's calls, of all its generations.

    to v7      [TOOL_CALLS] [{"name": "sky", "arguments": {"town": "Fernby"}}, {...}]
    from v11   [TOOL_CALLS]sky[ARGS]{"town": "Fernby"}[TOOL_CALLS]time[ARGS]{}

A list is read once it is whole; of the newer form, arguments are sent as they come.
"""

from __future__ import annotations

import re

from headrace_gateway.parsers.pieces import Piece
from headrace_gateway.parsers.scanning import (
    HEAD,
    LONGEST_BLOCK,
    CallScanner,
    call_in,
    loaded,
)

_HEAD = re.compile(
    r"\s*(?P<name>[A-Za-z0-9_.-]+)\s*(?:\[CALL_ID\]\s*[A-Za-z0-9_-]+\s*)?(?:\[ARGS\]\s*)?(?=\{)"
)
_MAY_BE_HEAD = re.compile(
    r"\s*+[A-Za-z0-9_.-]*+\s*+(?:\[CALL_ID\]\s*+[A-Za-z0-9_-]*+\s*+)?+(?:\[ARGS\]\s*+)?+(?:\[[A-Z_]*+)?"
)


class MistralCalls(CallScanner):
    begins = ("[TOOL_CALLS]",)
    within = ("[ARGS]", "[CALL_ID]")

    def _block(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if text[:1] in ("[", "{"):
            end = self.value.end_within(text)
            if (end or len(text)) > LONGEST_BLOCK:
                return self.no_block()
            if end is None:
                return None
            return self._listed(text[:end], text[end:]) or self.no_block()
        if (match := _HEAD.match(self.held, 0, HEAD)) and self.offers(match["name"]):
            self.held, self.take = self.held[match.end() :], self._arguments
            return self.call(match["name"])
        may_be_head = not match and len(self.held) < HEAD and _MAY_BE_HEAD.fullmatch(self.held)
        return None if may_be_head else self.no_block()

    def _arguments(self) -> list[Piece] | None:
        text, self.held = self.held, ""
        if not text:
            return None
        if (end := self.value.end(text)) is None:
            return self.more(text)
        self.close(text[end:])
        return self.more(text[:end])

    def _end_block(self) -> list[Piece]:
        if self.take == self._arguments:
            self.close("")
            return []
        return self.no_block()

    def _listed(self, text: str, rest: str) -> list[Piece]:
        value = loaded(text)
        found = [call_in(each) for each in (value if isinstance(value, list) else [value])]
        if not found or not all(each and self.offers(each[0]) for each in found):
            return []
        self.close(rest)
        return [piece for each in found if each for piece in self.call(*each)]
