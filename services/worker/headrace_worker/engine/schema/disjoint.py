"""Pure room: whether what is written for one schema of a oneOf could also fulfil another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Key,
    Node,
    Number,
    Object,
    String,
    ValueSet,
)

Look = Callable[[Key], Node | None]


def distinguishing_names(emitted: Node | None, real: Node | None, look: Look) -> set[str] | None:
    """Names that `emitted` must have so that none of its values fulfils `real`.

    None where that cannot be shown.
    """
    if emitted is None or real is None:
        return None
    needed: set[str] = set()
    for one in emitted.shapes:
        if _types(one) & real.narrowed:
            return None
        for other in real.shapes:
            names = _apart(one, other, look)
            if names is None:
                return None
            needed |= names
    return needed


def _apart(one: ValueSet, other: ValueSet, look: Look) -> set[str] | None:
    if not _types(one) & _types(other):
        return set()
    if isinstance(one, Constants) and isinstance(other, Constants):
        shared = {_frozen(v) for v in one.values} & {_frozen(v) for v in other.values}
        return None if shared or not other.complete else set()
    if isinstance(one, Number) and isinstance(other, Number):
        return set() if _before(one, other) or _before(other, one) else None
    if isinstance(one, Constants) and isinstance(other, Number):
        numbers = [v for v in one.values if _type(v) == "number"]
        return None if any(other.holds(v) for v in numbers) else set()
    if isinstance(one, Number) and isinstance(other, Constants):
        numbers = [v for v in other.values if _type(v) == "number"]
        return None if any(one.holds(v) for v in numbers) else set()
    if isinstance(one, Object) and isinstance(other, Object):
        return _objects_apart(one, other, look)
    return None


def _objects_apart(one: Object, other: Object, look: Look) -> set[str] | None:
    """By a name that the other requires and this one never has, or cannot have; or a constant."""
    if not one.free and any(name not in one.declared for name in other.required):
        return set()
    if other.closed and any(name not in other.declared for name in one.required):
        return set()
    for name in one.declared.keys() & other.declared.keys():
        mine, theirs = look(one.declared[name]), look(other.declared[name])
        if mine is None or theirs is None or not theirs.shapes or theirs.narrowed:
            continue
        constant = _all_constants(mine) and _all_constants(theirs)
        pairs = ((a, b) for a in mine.shapes for b in theirs.shapes)
        if constant and all(_apart(a, b, look) is not None for a, b in pairs):
            return set() if name in one.required else {name}
    return None


def _all_constants(node: Node) -> bool:
    return all(isinstance(shape, Constants) for shape in node.shapes)


def _before(one: Number, other: Number) -> bool:
    """All of one are smaller than all of the other."""
    if one.high is None or other.low is None:
        return False
    return one.high < other.low or (one.high == other.low and (one.below or other.above))


def _types(shape: ValueSet) -> set[str]:
    match shape:
        case Constants(values):
            return {_type(value) for value in values}
        case Number():
            return {"number"}
        case String():
            return {"string"}
        case Array():
            return {"array"}
    return {"object"}


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _frozen(value: Any) -> Any:
    """Equal for values that are the same in JSON."""
    match value:
        case bool():
            return "boolean", value
        case list():
            return "array", tuple(_frozen(each) for each in value)
        case dict():
            return "object", frozenset((name, _frozen(each)) for name, each in value.items())
    return value
