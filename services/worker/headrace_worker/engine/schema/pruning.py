"""Remove what no value can satisfy. Pure."""

from __future__ import annotations

from dataclasses import replace

from headrace_worker.engine.schema.value_sets import Array, Key, Node, Object, ValueSet


def prune(nodes: dict[Key, Node]) -> None:
    """Keep in each node what some finite value satisfies; a node may become empty."""
    satisfiable_keys = satisfiable(nodes)
    for node in nodes.values():
        node.value_sets = [
            _without_unsatisfiable(s, satisfiable_keys)
            for s in node.value_sets
            if _is_satisfiable(s, satisfiable_keys)
        ]


def satisfiable(nodes: dict[Key, Node]) -> set[Key]:
    """Return the nodes that some finite value satisfies."""
    satisfiable_keys: set[Key] = set()
    while True:
        more = {
            key
            for key, node in nodes.items()
            if key not in satisfiable_keys
            and any(_is_satisfiable(value_set, satisfiable_keys) for value_set in node.value_sets)
        }
        if not more:
            return satisfiable_keys
        satisfiable_keys |= more


def _is_satisfiable(value_set: ValueSet, satisfiable_keys: set[Key]) -> bool:
    match value_set:
        case Array(prefix, rest, minimum):
            needed = [*prefix[:minimum], *([rest] if minimum > len(prefix) else [])]
            return all(key in satisfiable_keys for key in needed)
        case Object(declared, required):
            possible = sum(key in satisfiable_keys for key in declared.values())
            possible += any(
                additional.value in satisfiable_keys for additional in value_set.additional
            )
            return (
                all(declared[name] in satisfiable_keys for name in required)
                and possible >= value_set.minimum
            )
    return True


def _without_unsatisfiable(value_set: ValueSet, satisfiable_keys: set[Key]) -> ValueSet:
    match value_set:
        case Array(prefix, rest):
            kept = next(
                (i for i, key in enumerate(prefix) if key not in satisfiable_keys), len(prefix)
            )
            ends = kept < len(prefix) or rest not in satisfiable_keys
            return replace(value_set, prefix=prefix[:kept], rest=None if ends else rest)
        case Object(declared):
            gone = tuple(name for name, key in declared.items() if key not in satisfiable_keys)
            return replace(
                value_set,
                properties={name: key for name, key in declared.items() if key in satisfiable_keys},
                additional=tuple(
                    additional
                    for additional in value_set.additional
                    if additional.value in satisfiable_keys
                ),
                forbidden=(*value_set.forbidden, *gone),
            )
    return value_set


def explain_unsatisfiable(nodes: dict[Key, Node], start: Key, reasons: dict[Key, list[str]]) -> str:
    """Explain why nothing satisfies the node `start`; `nodes` are not pruned yet."""
    key, seen, satisfiable_keys = start, {start}, satisfiable(nodes)
    while True:
        if reasons.get(key):
            return reasons[key][0]
        needed = [each for value_set in nodes[key].value_sets for each in _needed(value_set)]
        following = next((each for each, _ in needed if each not in satisfiable_keys), None)
        if following is None:
            return f"what is required at {' and '.join(key)} has itself in it, without end"
        what = next(what for each, what in needed if each == following)
        if not nodes[following].value_sets and not reasons.get(following):
            return f"{what} is required and {' and '.join(following)} forbids it"
        if following in seen:
            return f"{what} has itself in it, without end"
        key = following
        seen.add(key)


def _needed(value_set: ValueSet) -> list[tuple[Key, str]]:
    match value_set:
        case Array(prefix, rest, minimum):
            found = [(key, f"item {i}") for i, key in enumerate(prefix[:minimum])]
            return [
                *found,
                *([(rest, "an item")] if rest is not None and minimum > len(prefix) else []),
            ]
        case Object(declared, required):
            return [(key, f'"{name}"') for name, key in declared.items() if name in required]
    return []
