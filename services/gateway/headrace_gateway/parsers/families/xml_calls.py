"""Pure: calls whose arguments are elements: Qwen3-Coder's and GLM's.

    Qwen  <tool_call><function=sky><parameter=town>Fernby</parameter></function></tool_call>
    GLM   <tool_call>sky<arg_key>town</arg_key><arg_value>Fernby</arg_value></tool_call>

Values are texts; the schema of the tool says which are numbers, lists or objects.
"""

from __future__ import annotations

import re
from typing import Any

from headrace_gateway.parsers.pieces import Piece
from headrace_gateway.parsers.scanning import CallScanner, dumped
from headrace_gateway.parsers.values import property_schema, typed

_FUNCTION = re.compile(
    r"\s*(?:<function=)?(?P<name>[^<>\s=]+)>(?P<body>.*)</function>\s*", re.DOTALL
)
_PARAMETER = re.compile(
    r"<parameter=(?P<name>[^>]+)>(?P<value>.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL
)
_OUTER_END = "</tool_call>"
_GLM = re.compile(r"\s*(?P<name>[^<>\s]+)\s*(?P<body>(?:<arg_key>.*)?)", re.DOTALL)
_ARGUMENT = re.compile(
    r"<arg_key>(?P<name>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>", re.DOTALL
)


class XmlCalls(CallScanner):
    """A call is sent once it is whole."""

    def _block(self) -> list[Piece] | None:
        for body, after in self._bodies():
            if pieces := self._read(body):
                self.close(after)
                return pieces
        return None

    def _bodies(self) -> list[tuple[str, str]]:
        """Return what the block may be, up to each of its possible ends, and what follows it."""
        return [
            (self.held[: match.start()], self.held[match.end() :])
            for match in re.finditer(_OUTER_END, self.held)
        ]

    def _end_block(self) -> list[Piece]:
        if pieces := self._read(self.held):
            self.close("")
            return pieces
        return self.no_block()

    def _read(self, body: str) -> list[Piece]:
        raise NotImplementedError

    def _named(self, name: str, values: dict[str, str]) -> list[Piece]:
        schema = self.schemas.get(name)
        arguments: dict[str, Any] = {
            key: typed(text, property_schema(schema, key)) for key, text in values.items()
        }
        return self.call(name, dumped(arguments))


class QwenCoderCalls(XmlCalls):
    begins = ("<tool_call>", "<function=")
    """Some outputs leave the outer mark out, or its end in."""
    within = ("</tool_call>",)

    def _block(self) -> list[Piece] | None:
        is_inner = self.begin == "<function="
        pieces = super()._block()
        if pieces is not None and is_inner:
            self.take = self._closing
        return pieces

    def _bodies(self) -> list[tuple[str, str]]:
        if self.begin == "<tool_call>":
            return super()._bodies()
        ends = re.finditer("</function>", self.held)
        return [(self.held[: match.end()], self.held[match.end() :]) for match in ends]

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
        parameters = _PARAMETER.finditer(match["body"])
        values = {each["name"]: _one_line_less(each["value"]) for each in parameters}
        return self._named(match["name"], values)


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
        arguments = _ARGUMENT.finditer(match["body"])
        return self._named(
            match["name"], {each["name"].strip(): each["value"] for each in arguments}
        )


def _one_line_less(text: str) -> str:
    """Return the text without the line breaks that the format puts around it."""
    return text.removeprefix("\n").removesuffix("\n")
