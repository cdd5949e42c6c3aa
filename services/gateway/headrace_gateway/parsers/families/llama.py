"""Pure: calls that are a whole output: Llama's JSON, and Python as Llama 4 and others write it.

    JSON      {"name": "sky", "parameters": {"town": "Fernby"}}; {"name": ...}
    Python    [sky(town="Fernby"), time()]

They have no marks of their own: only an output that begins so and names an offered tool is a call.
"""

from __future__ import annotations

import re
from abc import abstractmethod

from headrace_gateway.parsers.pieces import Piece
from headrace_gateway.parsers.scanning import (
    HEAD,
    LONGEST_BLOCK,
    CallScanner,
    JsonValue,
    PythonList,
    Schemas,
    call_in,
    loaded,
)
from headrace_gateway.parsers.values import LONGEST_PYTHON, python_calls

_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,\s*'
    r'"(?:parameters|arguments)"\s*:\s*(?=\{)'
)
_BETWEEN = re.compile(r"[; \n\t,]*+")
"""Between two calls."""
_FIRST_KEY = re.compile(r'\{\s*(?:"(?P<key>[^"]*)(?P<end>"?))?')
_KEYS = ("type", "name", "parameters", "arguments")
_PYTHON = re.compile(r"\[\s*(?:(?P<name>[A-Za-z_][\w.]*)\s*(?P<open>\(.*)?)?", re.DOTALL)
_BUILT_IN = re.compile(r"(?P<name>[\w.-]+)\.call(?P<arguments>\(.*\))\s*", re.DOTALL)


class _WholeOutput(CallScanner):
    """What stands at the beginning is read as a call, as if a mark were before it."""

    def __init__(self, schemas: Schemas) -> None:
        super().__init__(schemas)
        self.take = self._start
        self._lead = ""
        """White space at the beginning of the output."""

    def _start(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if not text:
            return None
        self._lead, self.held = self.held[: len(self.held) - len(text)], text
        if self.opens(text):
            self.open("")
            return []
        if any(mark.startswith(text) for mark in self.begins):
            self.held = self._lead + text
            return None
        self.take = self._content
        return [self._lead]

    @abstractmethod
    def opens(self, text: str) -> bool:
        """Return whether a text that begins so may be a call."""

    def no_block(self) -> list[Piece]:
        if self.begin:
            return super().no_block()
        # Why one character: behind it a mark may be.
        text, rest = self._lead + self.held[:1], self.held[1:]
        self.close(rest)
        return [text]

    def _end_block(self) -> list[Piece]:
        if self.take == self._start:
            lead, self.held = self.held, ""
            self.close("")
            return [lead]
        return self.no_block()


class LlamaCalls(_WholeOutput):
    begins = ("<|python_tag|>",)

    def opens(self, text: str) -> bool:
        return text.startswith("{")

    def _block(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if not text.startswith("{"):
            # Of a built-in tool, or code: whole at the end of the output only.
            return self.no_block() if len(text) > LONGEST_BLOCK else None
        if (match := _HEAD.match(text, 0, HEAD)) and match["name"] in self.schemas:
            self.held, self.take = text[match.end() :], self._arguments
            self.value = JsonValue()
            return self.call(match["name"])
        if not _may_be_call(text[:HEAD]):
            return self.no_block()
        end = self.value.end_within(text)
        if (end or len(text)) > LONGEST_BLOCK:
            return self.no_block()
        if end is None:
            return None
        found = call_in(loaded(text[:end]))
        if found is None or found[0] not in self.schemas:
            return self.no_block()
        self.held, self.take = text[end:], self._next
        return self.call(*found)

    def _arguments(self) -> list[Piece] | None:
        text, self.held = self.held, ""
        if not text:
            return None
        if (end := self.value.end(text)) is None:
            return self.more(text)
        self.held, self.take = text[end:], self._after
        return self.more(text[:end])

    def _after(self) -> list[Piece] | None:
        text = self.held.lstrip()
        if not text:
            return None
        self.held, self.take = text.removeprefix("}"), self._next
        return []

    def _next(self) -> list[Piece] | None:
        """Look for a further call behind one."""
        between = _BETWEEN.match(self.held, 0, HEAD)
        assert between is not None
        text = self.held[between.end() :]
        if between.end() == HEAD:
            self.close(self.held)
            return []
        if not text or any(mark.startswith(text) and mark != text for mark in self.begins):
            return None
        self._lead, self.begin = self.held[: len(self.held) - len(text)], ""
        if text.startswith("{"):
            self.held = text
            self.open("")
        else:
            self.close(text if text.startswith(self.begins) else self.held)
        return []

    def _end_block(self) -> list[Piece]:
        if self.take in (self._arguments, self._after) or (
            self.take == self._next and not self.held.strip("; \n\t,")
        ):
            self.close("")
            return []
        if self.take == self._next:
            self.close(self.held)
            return []
        built_in = _BUILT_IN.fullmatch(self.held.strip()) if self.take == self._block else None
        if built_in and built_in["name"] in self.schemas:
            calls = python_calls("f" + built_in["arguments"])
            one = [(built_in["name"], calls[0][1])] if calls and len(calls) == 1 else []
            if pieces := self.calls_with(one):
                self.close("")
                return pieces
        return super()._end_block()


def _may_be_call(text: str) -> bool:
    """Return whether an object that begins so may be a call, by its first key."""
    first = _FIRST_KEY.match(text)
    if first is None or first["key"] is None:
        return first is not None and first.end() == len(text) < HEAD
    if first["end"]:
        return first["key"] in _KEYS
    return any(key.startswith(first["key"]) for key in _KEYS)


class PythonCalls(_WholeOutput):
    begins = ("<|python_start|>",)
    dropped = ("<|python_end|>",)

    def open(self, begin: str) -> None:
        super().open(begin)
        self.value = PythonList()

    def opens(self, text: str) -> bool:
        return text.startswith("[")

    def _block(self) -> list[Piece] | None:
        """Wait for the end of the list, and read it once."""
        text = self.held.lstrip()
        first = _PYTHON.match(text, 0, HEAD)
        if not text:
            return None
        if (
            first is None
            or first.end() < min(len(text), HEAD)
            or (first["open"] and first["name"] not in self.schemas)
        ):
            return self.no_block()
        if (end := self.value.end_within(text)) is None:
            return self.no_block() if len(text) > LONGEST_PYTHON else None
        if pieces := self._read(text[:end]):
            self.close(text[end:])
            return pieces
        return self.no_block()

    def _read(self, text: str) -> list[Piece]:
        calls = python_calls(text)
        if calls is None or any(name not in self.schemas for name, _ in calls):
            return []
        return self.calls_with(calls)
