"""The arguments of a call become an object that JSON can have, whatever the model has written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_gateway.api.anthropic.call_input import call_input

LONG = "9" * 5000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1e999, "b": NaN, "c": -Infinity, "d": 1.5}', ["1e999", "NaN", "-Infinity", 1.5]),
        (f'{{"a": {LONG}}}', [LONG]),
        ('{"a": "\\ud800", "b": "\\ud83d\\ude00", "c": "\\\\ud800"}', ["�", "😀", "\\ud800"]),
        ('{"a": [1e999, NaN], "b": "cu', [["inf", "nan"], "cu"]),
        ('{"a": "\\ud800 cu', ["� cu"]),
        (f'{{"a": {"[" * 9999}{"]" * 9999}}}', []),
        ("[1]", []),
        ("no JSON", []),
        ("", []),
    ],
)
def test_arguments_are_an_object(arguments: str, expected: list[Any]) -> None:
    found = call_input(arguments)
    assert list(found.values()) == expected
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


def test_deep_nesting_is_kept() -> None:
    assert json.dumps(call_input(f'{{"a": {"[" * 400}{"]" * 400}}}')).count("[") == 400
