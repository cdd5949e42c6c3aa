"""Pure room: from a JSON Schema to the shapes of every place that a value may have.

Each node is a set of places whose schemas must all hold there. So a `$ref` beside
other keywords, `allOf`, and names that several schemas speak of are one thing, and
what refers to itself ends.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from headrace_worker.engine.schema.disjoint import distinguishing_names
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.merging import SchemaMerger
from headrace_worker.engine.schema.pruning import living, prune, why_empty
from headrace_worker.engine.schema.subschemas import Subschemas, below
from headrace_worker.engine.schema.value_sets import Array, Key, Node, Object, ValueSet

MAX_NODES = 4000

Nodes = dict[Key, Node]
ROOT: Key = ("#",)


def read_schema(schema: object) -> Nodes:
    """Every node by its key; the whole is at `ROOT`. Each has a shape, and each can be written.

    Raises:
        SchemaRefused: a keyword cannot be enforced, or nothing fulfils the schema.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise SchemaRefused("a schema should be an object, true or false")
    try:
        return _Reader(schema).read()
    except RecursionError:
        raise SchemaRefused("the schema is nested too deep") from None


class _Reader:
    def __init__(self, schema: dict[str, Any]) -> None:
        self._places = Subschemas(schema)
        self._nodes: Nodes = {}
        self._under_way: set[Key] = set()
        self._impossible: list[str] = []
        self._folding = SchemaMerger(self._places, self.node, self._impossible)
        self._reasons: dict[Key, list[str]] = {}
        self._told_apart: set[str] = set()

    def read(self) -> Nodes:
        waiting = [ROOT]
        reached: dict[Key, None] = {}
        while waiting:
            key = waiting.pop()
            if key in reached:
                continue
            reached[key] = None
            if len(reached) > MAX_NODES:
                raise SchemaRefused(f"the schema comes to more than {MAX_NODES} different places")
            node = self.node(key)
            assert node is not None
            waiting += [child for shape in node.shapes for child in children(shape)]
        nodes = {key: node for key in reached if (node := self.node(key)) is not None}
        if ROOT not in living(nodes):
            why = why_empty(nodes, ROOT, self._reasons)
            raise SchemaRefused(f"nothing fulfils the schema: {why}")
        prune(nodes)
        return nodes

    def node(self, key: Key) -> Node | None:
        """The node, not what is below it; None while it is being read."""
        if key in self._under_way:
            return None
        if key not in self._nodes:
            self._under_way.add(key)
            self._nodes[key] = self._fold(key)
            self._under_way.discard(key)
        return self._nodes[key]

    def _fold(self, key: Key) -> Node:
        node, narrowed = Node(), set()
        alternatives = self._places.alternatives(key)
        for place in dict.fromkeys(each for flat in alternatives for each in flat):
            if "oneOf" in self._places.object_at(place):
                self._tell_apart(place)
        for flat in self._places.alternatives(key):
            shapes, more = self._folding.shapes(flat)
            self._reasons.setdefault(key, []).extend(self._impossible)
            self._impossible.clear()
            node.shapes += [shape for shape in shapes if shape not in node.shapes]
            narrowed |= more
        node.narrowed = frozenset(narrowed)
        return node

    def _tell_apart(self, place: str) -> None:
        """Make sure that what fulfils one schema of a oneOf fulfils no other."""
        if place in self._told_apart:
            return
        self._told_apart.add(place)
        branches = [
            below(place, "oneOf", i) for i in range(len(self._places.object_at(place)["oneOf"]))
        ]
        nodes = [self.node((branch,)) for branch in branches]
        needed: dict[str, set[str]] = {branch: set() for branch in branches}
        for (i, one), (j, other) in combinations(enumerate(nodes), 2):
            for emitted, real, branch in ((one, other, branches[i]), (other, one, branches[j])):
                names = distinguishing_names(emitted, real, self.node)
                if names is None:
                    raise SchemaRefused(
                        f"oneOf at {place} cannot be enforced: its schemas {i} and {j} may hold at"
                        " once; write anyOf, or give each a constant of its own"
                    )
                needed[branch] |= names
        for branch, names in needed.items():
            if names:
                self._places.require(branch, sorted(names))
                # Some may have been read on the way here, without it.
                self._nodes.clear()


def children(shape: ValueSet) -> list[Key]:
    """Of arrays and objects."""
    match shape:
        case Array(prefix, rest):
            return [*prefix, *([] if rest is None else [rest])]
        case Object():
            return [*shape.declared.values(), *(free.value for free in shape.free)]
    return []
