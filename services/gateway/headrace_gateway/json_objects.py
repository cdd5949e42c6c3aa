"""Bodies to Python objects, at a bounded price: the parser holds the event loop while it runs."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from headrace.errors import InvalidRequest

_MAX_BRACKETS = 500_000
"""A megabyte of empty lists takes a hundred times as long as one of text."""

MAX_ENTRIES = 10_000
"""Of any list or object but token ids; what is checked entry by entry must not be long."""


def read_object(data: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object, strictly: UTF-8, no NaN, no lone surrogates, bounded depth.

    Raises:
        InvalidRequest: it is none, or is too long.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(f"the body has {len(data)} bytes; it may have {max_bytes}")
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > _MAX_BRACKETS:
        raise InvalidRequest(
            f"the body has {brackets} opening brackets; it may have {_MAX_BRACKETS}"
        )
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def texts_or_token_ids(value: object) -> list[str] | list[list[int]] | None:
    """A text, token ids, or a list of either, as a list; None for anything else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds <= {str}:
            return value
        if kinds == {int} and are_token_ids(value):
            return [value]
        if kinds == {list} and all(map(are_token_ids, value)):
            return value
    return None


def are_token_ids(values: list[Any]) -> bool:
    """Whether all are integers of 32 bits without sign; quick enough for a million."""
    if not values:
        return True
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) < 2**32
