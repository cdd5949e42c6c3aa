"""Remove what no value can satisfy. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from itertools import takewhile

from headrace_worker.engine.schema.subschemas import Key
from headrace_worker.engine.schema.value_sets import Array, Node, Object, ValueSet


def satisfiable_keys(nodes: dict[Key, Node]) -> set[Key]:
    """Return the nodes that some finite value satisfies."""
    found: set[Key] = set()
    while True:
        more = {
            key
            for key, node in nodes.items()
            if key not in found and any(_is_satisfiable(each, found) for each in node.value_sets)
        }
        if not more:
            return found
        found |= more


def pruned(nodes: dict[Key, Node], satisfiable: Set[Key]) -> dict[Key, Node]:
    """Return the nodes in `satisfiable`, with the values that some finite value satisfies."""
    return {
        key: Node(
            [
                _without_unsatisfiable(each, satisfiable)
                for each in node.value_sets
                if _is_satisfiable(each, satisfiable)
            ]
        )
        for key, node in nodes.items()
        if key in satisfiable
    }


def _needed(value_set: ValueSet) -> list[tuple[Key, str]]:
    """Return the nodes without which nothing is in the set, and what they are called."""
    match value_set:
        case Array(prefix, rest, minimum):
            needed = [(key, f"item {i}") for i, key in enumerate(prefix[:minimum])]
            if rest is not None and minimum > len(prefix):
                needed.append((rest, "an item"))
            return needed
        case Object(declared, required):
            return [(key, f'"{name}"') for name, key in declared.items() if name in required]
    return []


def _is_satisfiable(value_set: ValueSet, satisfiable: Set[Key]) -> bool:
    if not all(key in satisfiable for key, _ in _needed(value_set)):
        return False
    if not isinstance(value_set, Object):
        return True
    possible = sum(key in satisfiable for key in value_set.properties.values())
    possible += any(each.value in satisfiable for each in value_set.additional)
    return possible >= value_set.minimum


def _without_unsatisfiable(value_set: ValueSet, satisfiable: Set[Key]) -> ValueSet:
    match value_set:
        case Array(prefix, rest):
            kept = tuple(takewhile(satisfiable.__contains__, prefix))
            ends = len(kept) < len(prefix) or rest not in satisfiable
            return replace(value_set, prefix=kept, rest=None if ends else rest)
        case Object(declared, _, additional):
            kept_names = {name: key for name, key in declared.items() if key in satisfiable}
            gone = (name for name in declared if name not in kept_names)
            return replace(
                value_set,
                properties=kept_names,
                additional=tuple(each for each in additional if each.value in satisfiable),
                forbidden=(*value_set.forbidden, *gone),
            )
    return value_set


def explain_unsatisfiable(nodes: dict[Key, Node], start: Key, satisfiable: Set[Key]) -> str:
    """Explain why nothing satisfies the node `start`."""
    key, seen = start, {start}
    while not nodes[key].reasons:
        needed = [each for value_set in nodes[key].value_sets for each in _needed(value_set)]
        key_and_name = next((each for each in needed if each[0] not in satisfiable), None)
        if key_and_name is None:
            return f"what is required at {' and '.join(key)} has itself in it, without end"
        following, what = key_and_name
        if not nodes[following].value_sets and not nodes[following].reasons:
            return f"{what} is required and {' and '.join(following)} forbids it"
        if following in seen:
            return f"{what} has itself in it, without end"
        key = following
        seen.add(key)
    return nodes[key].reasons[0]
