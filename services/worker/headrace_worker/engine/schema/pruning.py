"""Pure room: shapes without what nothing can fulfil."""

from __future__ import annotations

from dataclasses import replace

from headrace_worker.engine.schema.value_sets import Array, Key, Node, Object, ValueSet


def prune(nodes: dict[Key, Node]) -> None:
    """Leave in each node the shapes that some finite value has; a node may be left with none."""
    alive = living(nodes)
    for node in nodes.values():
        node.shapes = [_within(s, alive) for s in node.shapes if _is_alive(s, alive)]


def living(nodes: dict[Key, Node]) -> set[Key]:
    """The nodes that some finite value fulfils."""
    alive: set[Key] = set()
    while True:
        more = {
            key
            for key, node in nodes.items()
            if key not in alive and any(_is_alive(shape, alive) for shape in node.shapes)
        }
        if not more:
            return alive
        alive |= more


def _is_alive(shape: ValueSet, alive: set[Key]) -> bool:
    match shape:
        case Array(prefix, rest, least):
            needed = [*prefix[:least], *([rest] if least > len(prefix) else [])]
            return all(key in alive for key in needed)
        case Object(declared, required):
            possible = sum(key in alive for key in declared.values())
            possible += any(free.value in alive for free in shape.free)
            return all(declared[name] in alive for name in required) and possible >= shape.least
    return True


def _within(shape: ValueSet, alive: set[Key]) -> ValueSet:
    match shape:
        case Array(prefix, rest):
            kept = next((i for i, key in enumerate(prefix) if key not in alive), len(prefix))
            ends = kept < len(prefix) or rest not in alive
            return replace(shape, prefix=prefix[:kept], rest=None if ends else rest)
        case Object(declared):
            gone = tuple(name for name, key in declared.items() if key not in alive)
            return replace(
                shape,
                declared={name: key for name, key in declared.items() if key in alive},
                free=tuple(free for free in shape.free if free.value in alive),
                excluded=(*shape.excluded, *gone),
            )
    return shape


def why_empty(nodes: dict[Key, Node], start: Key, reasons: dict[Key, list[str]]) -> str:
    """Why nothing fulfils what is at `start`, by what it needs; `nodes` are not pruned yet."""
    key, seen, alive = start, {start}, living(nodes)
    while True:
        if reasons.get(key):
            return reasons[key][0]
        needed = [each for shape in nodes[key].shapes for each in _needed(shape)]
        following = next((each for each, _ in needed if each not in alive), None)
        if following is None:
            return f"what is required at {' and '.join(key)} has itself in it, without end"
        what = next(what for each, what in needed if each == following)
        if not nodes[following].shapes and not reasons.get(following):
            return f"{what} is required and {' and '.join(following)} forbids it"
        if following in seen:
            return f"{what} has itself in it, without end"
        key = following
        seen.add(key)


def _needed(shape: ValueSet) -> list[tuple[Key, str]]:
    match shape:
        case Array(prefix, rest, least):
            found = [(key, f"item {i}") for i, key in enumerate(prefix[:least])]
            return [
                *found,
                *([(rest, "an item")] if rest is not None and least > len(prefix) else []),
            ]
        case Object(declared, required):
            return [(key, f'"{name}"') for name, key in declared.items() if name in required]
    return []
