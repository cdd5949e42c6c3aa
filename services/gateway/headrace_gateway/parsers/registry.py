"""Pure: the parser of a request's output, by the names that its record has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.internal.v1.request_pb2 import OfferedTool, Rendering
from headrace_gateway.parsers.families.gemma import FunctionGemmaCalls, Gemma4Calls, ToolCode
from headrace_gateway.parsers.families.harmony import MARKS as HARMONY_MARKS
from headrace_gateway.parsers.families.harmony import HarmonyParser
from headrace_gateway.parsers.families.json_calls import DeepseekCalls, HermesCalls, KimiCalls
from headrace_gateway.parsers.families.llama import LlamaCalls, PythonCalls
from headrace_gateway.parsers.families.mistral import MistralCalls
from headrace_gateway.parsers.families.think import ThinkMarks, ThinkParser
from headrace_gateway.parsers.families.xml_calls import GlmCalls, QwenCoderCalls
from headrace_gateway.parsers.pieces import CallPiece, Parser, Piece
from headrace_gateway.parsers.scanning import CallScanner, loaded

HARMONY_CALLS, HARMONY_REASONING = "openai", "openai_gptoss"

_THINK = ThinkMarks("<think>", "</think>")
THINK = {
    "qwen3": _THINK,
    "deepseek_r1": ThinkMarks("<think>", "</think>", assumed=True),
    "deepseek_v3": _THINK,
    "glm45": _THINK,
    "kimi_k2": ThinkMarks("<think>", "</think>", also_ends=("<|tool_calls_section_begin|>",)),
    "mistral": ThinkMarks("[THINK]", "[/THINK]"),
    "granite": ThinkMarks("Here is my thought process:", "Here is my response:"),
    "gemma4": ThinkMarks("<|channel>thought", "<channel|>"),
}

_CALLS: dict[str, type[CallScanner]] = {
    "hermes": HermesCalls,
    "hermes_inline": HermesCalls,
    "qwen3_coder": QwenCoderCalls,
    "llama3_json": LlamaCalls,
    "pythonic": PythonCalls,
    "llama4_pythonic": PythonCalls,
    "mistral": MistralCalls,
    "mistral_list": MistralCalls,
    "deepseek_v3": DeepseekCalls,
    "deepseek_v31": DeepseekCalls,
    "glm45": GlmCalls,
    "kimi_k2": KimiCalls,
    "functiongemma": FunctionGemmaCalls,
    "gemma": ToolCode,
    "gemma4": Gemma4Calls,
}


TYPED = frozenset({"qwen3_coder", "glm45"})
"""Parsers that take the types of arguments from the tools' schemas."""


def parser_for(rendering: Rendering) -> Parser | None:
    """Return None where the text is taken as it is."""
    schemas = _schemas(rendering.tools)
    # Why a default: earlier gateways knew one format, and did not name it.
    name = (rendering.tool_parser or "hermes") if rendering.calls_tools else ""
    if name == HARMONY_CALLS or rendering.reasoning_parser == HARMONY_REASONING:
        splits = rendering.reasoning_parser == HARMONY_REASONING
        harmony = HarmonyParser(schemas, searches=name == HARMONY_CALLS, reasoning=splits)
        return OneCall(harmony) if rendering.single_call else harmony
    make, marks = _CALLS.get(name), THINK.get(rendering.reasoning_parser)
    calls: Parser | None = None if make is None else make(schemas)
    if calls is not None and rendering.single_call:
        calls = OneCall(calls)
    if marks is None:
        return calls
    reasoning = ThinkParser(marks, begins_open=rendering.reasoning_open)
    return reasoning if calls is None else ReasoningThenCalls(reasoning, calls)


def marks_of(rendering: Rendering) -> frozenset[str]:
    """Return the marks that the request's parser has to see; they may be special tokens."""
    if rendering.tool_parser == HARMONY_CALLS or rendering.reasoning_parser == HARMONY_REASONING:
        return frozenset(HARMONY_MARKS)
    found: set[str] = set()
    if rendering.calls_tools and (calls := _CALLS.get(rendering.tool_parser)) is not None:
        found.update(calls.begins, calls.dropped, calls.within)
    if (marks := THINK.get(rendering.reasoning_parser)) is not None:
        found.update((marks.begin, marks.end), marks.also_ends)
    return frozenset(found)


def _schemas(tools: Iterable[OfferedTool]) -> dict[str, Any]:
    found = ((tool.name, loaded(tool.parameters)) for tool in tools)
    return {name: schema if isinstance(schema, dict) else {} for name, schema in found}


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
