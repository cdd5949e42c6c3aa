"""Decide whether a value written for one branch of a oneOf could satisfy another. Pure."""

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

GetNode = Callable[[Key], Node | None]


def distinguishing_names(
    written: Node | None, other_branch: Node | None, get_node: GetNode
) -> set[str] | None:
    """Return names that `written` must require so that none of its values satisfies the other.

    None if that cannot be shown.
    """
    if written is None or other_branch is None:
        return None
    needed: set[str] = set()
    for one in written.value_sets:
        if _types(one) & other_branch.omitted_types:
            return None
        for other in other_branch.value_sets:
            names = _distinguishing(one, other, get_node)
            if names is None:
                return None
            needed |= names
    return needed


def _distinguishing(one: ValueSet, other: ValueSet, get_node: GetNode) -> set[str] | None:
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
        return _distinguishing_objects(one, other, get_node)
    return None


def _distinguishing_objects(one: Object, other: Object, get_node: GetNode) -> set[str] | None:
    """Compare by a name that one requires and the other cannot have; or by a constant."""
    if not one.additional and any(name not in one.properties for name in other.required):
        return set()
    if other.closed and any(name not in other.properties for name in one.required):
        return set()
    for name in one.properties.keys() & other.properties.keys():
        mine, theirs = get_node(one.properties[name]), get_node(other.properties[name])
        if mine is None or theirs is None or not theirs.value_sets or theirs.omitted_types:
            continue
        constant = _all_constants(mine) and _all_constants(theirs)
        pairs = ((a, b) for a in mine.value_sets for b in theirs.value_sets)
        if constant and all(_distinguishing(a, b, get_node) is not None for a, b in pairs):
            return set() if name in one.required else {name}
    return None


def _all_constants(node: Node) -> bool:
    return all(isinstance(value_set, Constants) for value_set in node.value_sets)


def _before(one: Number, other: Number) -> bool:
    """Return whether all of one are smaller than all of the other."""
    if one.high is None or other.low is None:
        return False
    return one.high < other.low or (
        one.high == other.low and (one.exclusive_high or other.exclusive_low)
    )


def _types(value_set: ValueSet) -> set[str]:
    match value_set:
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
    """Return equal results for values that are equal in JSON."""
    match value:
        case bool():
            return "boolean", value
        case list():
            return "array", tuple(_frozen(each) for each in value)
        case dict():
            return "object", frozenset((name, _frozen(each)) for name, each in value.items())
    return value
