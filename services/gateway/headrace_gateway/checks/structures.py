"""Pure: checks of a structured output that need no compilation.

Only an engine knows whether it can follow a structure; what would cost it too much, or would break
it, is refused here.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from headrace.errors import InvalidStructure, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import Structure

MAX_CHARACTERS = 65_536
MAX_DEPTH = 64
"""Of brackets. Compiling takes its cube: 24 s at 500, and the worker's stack at 2000."""


def check_structure(structure: Structure, card: ModelCard, field: str) -> None:
    """Refuse what is no structure for this model; `field` is the caller's name for it.

    Raises:
        Unsupported: the model's engine does not constrain output.
        InvalidStructure: it is malformed, too long or too deep.
    """
    form = structure.WhichOneof("form")
    if form is None:
        raise InvalidStructure(f"{field} names no form", field=field)
    if not card.capabilities.grammar:
        raise Unsupported(
            f"{field}: the engine of model {card.model} does not support structured output",
            field=field,
        )
    if form == "json_object":
        return
    text: str = getattr(structure, form)
    if len(text) > MAX_CHARACTERS:
        raise InvalidStructure(
            f"{field} has {len(text)} characters; it may have {MAX_CHARACTERS}", field=field
        )
    in_json = form in ("json_schema", "structural_tag")
    depth = _depth_of(_object(text, field)) if in_json else _parentheses(text)
    if depth > MAX_DEPTH:
        raise InvalidStructure(
            f"{field} is nested {depth} deep; it may be {MAX_DEPTH} deep", field=field
        )


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError as error:
        raise InvalidStructure(f"{field} is not JSON: {error}", field=field) from error
    if not isinstance(value, dict):
        raise InvalidStructure(f"{field} is not a JSON object", field=field)
    return value


def _depth_of(value: object) -> int:
    depth, level = 0, [value]
    while level:
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        depth += any(isinstance(each, dict | list) for each in level)
        level = inner
    return depth


def _parentheses(text: str) -> int:
    """Return how deep parentheses nest at most; those escaped or in quotes count too."""
    deepest = depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return deepest
