"""What a parser makes of a text that comes in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from headrace.internal.v1.request_pb2 import Rendering
from headrace_gateway.parsers.pieces import Reasoning
from headrace_gateway.parsers.registry import parser_for

Parts = tuple[str, str, list[tuple[str, str]]]
"""Content, reasoning, and calls with their arguments as text."""


def parts(rendering: Rendering, pieces: Iterable[str]) -> Parts:
    parser = parser_for(rendering)
    assert parser is not None
    content, reasoning, calls = "", "", list[tuple[str, str]]()
    found = [each for piece in pieces for each in parser.feed(piece)]
    for each in [*found, *parser.flush()]:
        if isinstance(each, str):
            assert each
            content += each
        elif isinstance(each, Reasoning):
            reasoning += each.text
        elif each.name is not None:
            assert each.index == len(calls)
            calls.append((each.name, each.arguments))
        else:
            assert each.index == len(calls) - 1
            name, arguments = calls[-1]
            calls[-1] = name, arguments + each.arguments
    return content, reasoning, calls


def meant(found: Parts) -> tuple[str, str, list[tuple[str, Any]]]:
    content, reasoning, calls = found
    return content, reasoning, [(name, json.loads(text)) for name, text in calls]
