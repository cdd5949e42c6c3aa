"""Pure: calls whose arguments are elements: Qwen3-Coder's and GLM's.

    Qwen  <tool_call><function=sky><parameter=town>Fernby</parameter></function></tool_call>
    GLM   <tool_call>sky<arg_key>town</arg_key><arg_value>Fernby</arg_value></tool_call>

Values are texts; the schema of the tool says which are numbers, lists or objects.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from headrace_gateway.parsers.pieces import CallPiece, Piece
from headrace_gateway.parsers.scanning import CallScanner
from headrace_gateway.parsers.values import property_schema, typed

_FUNCTION = re.compile(
    r"\s*(?:<function=)?(?P<name>[^<>\s=]+)>(?P<body>.*)</function>\s*", re.DOTALL
)
_PARAMETER = re.compile(
    r"\s*+<parameter=(?P<name>[^<>\n]{1,128})>(?P<value>.*?)"
    r"(?:</parameter>|(?=<parameter=)|\Z)\s*+",
    re.DOTALL,
)
_OUTER_END = "</tool_call>"
_GLM = re.compile(r"\s*(?P<name>[^<>\s]+)\s*(?P<body>(?:<arg_key>.*)?)", re.DOTALL)
_ARGUMENT = re.compile(
    r"<arg_key>(?P<name>[^<]{1,128})</arg_key>\s*+<arg_value>(?P<value>.*?)</arg_value>\s*+",
    re.DOTALL,
)


class XmlCalls(CallScanner):
    """A call is sent once it is whole."""

    inner_end: ClassVar[str] = ""
    """What ends a block of the second mark, and belongs to it."""

    def _block(self) -> list[Piece] | None:
        is_inner = self.begin != self.begins[0]
        mark = self.inner_end if is_inner else _OUTER_END
        while (place := self.next_end(mark)) is not None:
            after = place + len(mark)
            if pieces := self._read(self.held[: after if is_inner else place]):
                self.close(self.held[after:])
                return pieces
            self.end_failed()
        return self.no_block() if self.hopeless else None

    def _end_block(self) -> list[Piece]:
        if pieces := self._read(self.held):
            self.close("")
            return pieces
        return self.no_block()

    def _read(self, body: str) -> list[Piece]:
        raise NotImplementedError

    def _named(self, name: str, values: dict[str, str] | None) -> list[Piece]:
        if values is None:
            return []
        schema = self.schemas.get(name)
        arguments: dict[str, Any] = {
            key: typed(text, property_schema(schema, key)) for key, text in values.items()
        }
        return self.calls_with([(name, arguments)])


class QwenCoderCalls(XmlCalls):
    begins = ("<tool_call>", "<function=")
    """Some outputs leave the outer mark out, or its end in."""
    within = ("</tool_call>",)

    inner_end = "</function>"

    def _block(self) -> list[Piece] | None:
        is_inner = self.begin == "<function="
        pieces = super()._block()
        if pieces and is_inner and isinstance(pieces[0], CallPiece):
            self.take = self._closing
        return pieces

    def _closing(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if text.startswith(_OUTER_END):
            self.close(text[len(_OUTER_END) :])
        elif _OUTER_END.startswith(text):
            return None
        else:
            self.close(self.held)
        return []

    def _end_block(self) -> list[Piece]:
        if self.take == self._closing:
            self.close("")
            return []
        return super()._end_block()

    def _read(self, body: str) -> list[Piece]:
        match = _FUNCTION.fullmatch(body)
        if match is None:
            return []
        values = _values(_PARAMETER, match["body"].lstrip())
        return self._named(
            match["name"],
            values and {name: _one_line_less(text) for name, text in values.items()},
        )


class GlmCalls(XmlCalls):
    begins = ("<tool_call>",)
    within = ("</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")

    def _read(self, body: str) -> list[Piece]:
        match = _GLM.fullmatch(body)
        if match is None or (match["body"] and not match["body"].rstrip().endswith("</arg_value>")):
            return []
        if not match["body"] and match["name"] not in self.schemas:
            # One word between the marks is hardly a call, unless it is a name.
            return []
        return self._named(match["name"], _values(_ARGUMENT, match["body"]))


def _values(pattern: re.Pattern[str], body: str) -> dict[str, str] | None:
    """Return the arguments that a body is made of; None if there is anything else in it."""
    values, place = dict[str, str](), 0
    while place < len(body):
        if (match := pattern.match(body, place)) is None:
            return None
        values[match["name"].strip()], place = match["value"], match.end()
    return values


def _one_line_less(text: str) -> str:
    """Return the text without the line breaks that the format puts around it."""
    return text.removeprefix("\n").removesuffix("\n")
