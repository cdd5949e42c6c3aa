"""Decide whether a value written for one branch of a oneOf could satisfy another. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from headrace_worker.engine.schema.subschemas import Key
from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Node,
    Number,
    Object,
    String,
    ValueSet,
    frozen,
    type_of,
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
    match one, other:
        case Object(), Object():
            return _distinguishing_objects(one, other, get_node)
        case Constants(), Constants():
            shared = set(map(frozen, one.values)) & set(map(frozen, other.values))
            disjoint = not shared and other.complete
        case Number(), Number():
            disjoint = _before(one, other) or _before(other, one)
        case (Constants() as constants, Number() as number) | (
            Number() as number,
            Constants() as constants,
        ):
            numbers = (value for value in constants.values if type_of(value) == "number")
            disjoint = not any(map(number.holds, numbers))
        case _:
            return None
    return set() if disjoint else None


def _distinguishing_objects(one: Object, other: Object, get_node: GetNode) -> set[str] | None:
    """Compare by a name that one requires and the other cannot have; or by a constant."""
    if not one.additional and any(name not in one.properties for name in other.required):
        return set()
    if other.closed and any(name not in other.properties for name in one.required):
        return set()
    shared = [name for name in one.properties if name in other.properties]
    # Those that are required anyway first.
    for name in sorted(shared, key=lambda name: name not in one.required):
        mine, theirs = get_node(one.properties[name]), get_node(other.properties[name])
        if mine is None or theirs is None or not theirs.value_sets or theirs.omitted_types:
            continue
        value_sets = (*mine.value_sets, *theirs.value_sets)
        constant = all(isinstance(each, Constants) for each in value_sets)
        pairs = product(mine.value_sets, theirs.value_sets)
        if constant and all(_distinguishing(a, b, get_node) is not None for a, b in pairs):
            return {name} - one.required
    return None


def _before(one: Number, other: Number) -> bool:
    """Return whether all of one are smaller than all of the other."""
    if one.high is None or other.low is None:
        return False
    return one.high < other.low or (
        one.high == other.low and (one.exclusive_high or other.exclusive_low)
    )


def _types(value_set: ValueSet) -> set[str]:
    if isinstance(value_set, Constants):
        return set(map(type_of, value_set.values))
    return {_TYPES[type(value_set)]}


_TYPES = {Number: "number", String: "string", Array: "array", Object: "object"}
