"""Pure: the arguments of a call as the object that Anthropic's answers have."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic_core import from_json

_ESCAPED = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_LONGEST_NUMBER = 4300
"""Digits; Python reads and writes no more of an integer."""


def call_input(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call; of those that `max_tokens` cut, what is there.

    Numbers that JSON cannot have, or Python cannot write, are texts. Empty if it is no object.
    """
    arguments = _ESCAPED.sub(lambda found: "\\ufffd" if found["half"] else found[0], arguments)
    for read in (_whole, _cut):
        try:
            value = read(arguments)
            # Why here: what cannot be written must not end the answer.
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else {}
    return {}


def _whole(text: str) -> Any:
    return json.loads(text, parse_constant=str, parse_float=_float, parse_int=_integer)


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_NUMBER else text


def _cut(text: str) -> Any:
    return _written(from_json(text, allow_partial="trailing-strings"))


def _written(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _written(each) for name, each in value.items()}
        case list():
            return [_written(each) for each in value]
    return value
