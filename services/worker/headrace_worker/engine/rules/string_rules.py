"""Strings and patterns of JSON strings, in xgrammar's notation. Pure."""

from __future__ import annotations

import json
from typing import Any

from headrace_worker.engine.regex.value_regex import (
    Alt,
    And,
    Cat,
    Chars,
    Not,
    Ranges,
    Regex,
    Repeat,
    intersect,
    invert,
)

_MUST_ESCAPE = ((0, 31), (34, 34), (92, 92))
_ESCAPED = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}


def regex_rule(regex: Regex) -> str:
    """Return an expression for the text between the quotes of a JSON string."""
    match regex:
        case Chars(ranges):
            return character_class(ranges)
        case Cat(parts):
            return " ".join(regex_rule(part) for part in parts) if parts else '""'
        case Alt(parts):
            return f"({' | '.join(regex_rule(part) for part in parts)})"
        case Repeat(inner, minimum, maximum):
            return f"({regex_rule(inner)}){{{minimum},{'' if maximum is None else maximum}}}"
        case And() | Not():
            raise AssertionError("written as its automaton")


def character_class(ranges: Ranges) -> str:
    """Return one character of a string's value, as JSON writes it: escaped only if necessary."""
    plain = intersect(ranges, invert(_MUST_ESCAPE))
    options = [f"[{''.join(_range(*each) for each in plain)}]"] if plain else []
    for first, last in intersect(ranges, _MUST_ESCAPE):
        for code in range(first, last + 1):
            options.append(literal("\\" + _ESCAPED[code] if code in _ESCAPED else f"\\u{code:04x}"))
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _range(first: int, last: int) -> str:
    return _code(first) if first == last else f"{_code(first)}-{_code(last)}"


def _code(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def literal(text: str) -> str:
    """Return the text in the grammar's quotes."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(c if c.isprintable() else _code(ord(c)) for c in quoted)}"'


def to_json(value: Any) -> str:
    """Return the value with `", "` and `": "`, and only the necessary escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
