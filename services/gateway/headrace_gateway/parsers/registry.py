"""Pure: the parser of a request's output, by the names that its record has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headrace.internal.v1.request_pb2 import Rendering
from headrace_gateway.parsers.families.hermes import HermesCalls
from headrace_gateway.parsers.families.think import ThinkMarks, ThinkParser
from headrace_gateway.parsers.pieces import CallPiece, Parser, Piece

Schemas = Mapping[str, Mapping[str, Any]]
"""Names of the tools that are offered to their parameters' schemas."""

THINK = {"qwen3": ThinkMarks("<think>", "</think>")}

_CALLS: dict[str, Callable[[Schemas], Parser]] = {
    "hermes": lambda _: HermesCalls(),
    "hermes_inline": lambda _: HermesCalls(),
}


def parser_for(rendering: Rendering) -> Parser | None:
    """Return None where the text is taken as it is."""
    calls = None
    if rendering.calls_tools:
        # Why a default: earlier gateways knew one format, and did not name it.
        calls = _CALLS[rendering.tool_parser or "hermes"]({})
        calls = OneCall(calls) if rendering.single_call else calls
    marks = THINK.get(rendering.reasoning_parser)
    if marks is None:
        return calls
    reasoning = ThinkParser(marks, begins_open=rendering.reasoning_open)
    return reasoning if calls is None else ReasoningThenCalls(reasoning, calls)


class ReasoningThenCalls:
    """What is not reasoning is searched for calls."""

    def __init__(self, reasoning: Parser, calls: Parser) -> None:
        self._reasoning, self._calls = reasoning, calls

    @property
    def reasons(self) -> bool:
        return self._reasoning.reasons

    def feed(self, text: str) -> list[Piece]:
        return self._searched(self._reasoning.feed(text))

    def flush(self) -> list[Piece]:
        return [*self._searched(self._reasoning.flush()), *self._calls.flush()]

    def _searched(self, pieces: Iterable[Piece]) -> list[Piece]:
        found: list[Piece] = []
        for piece in pieces:
            found += self._calls.feed(piece) if isinstance(piece, str) else [piece]
        return found


class OneCall:
    """Leaves out all calls but the first."""

    def __init__(self, calls: Parser) -> None:
        self._calls = calls

    @property
    def reasons(self) -> bool:
        return self._calls.reasons

    def feed(self, text: str) -> list[Piece]:
        return _first_call(self._calls.feed(text))

    def flush(self) -> list[Piece]:
        return _first_call(self._calls.flush())


def _first_call(pieces: Iterable[Piece]) -> list[Piece]:
    return [piece for piece in pieces if not (isinstance(piece, CallPiece) and piece.index)]
