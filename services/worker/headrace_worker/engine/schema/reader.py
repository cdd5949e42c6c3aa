"""Read a JSON Schema: the values allowed at every place. Pure.

Each node is a set of subschemas that must all hold. So a `$ref` beside other keywords, `allOf`, and
names that several subschemas constrain are the same thing, and recursion ends.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from headrace_worker.engine.schema.disjoint import distinguishing_names
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.merging import SchemaMerger
from headrace_worker.engine.schema.pruning import explain_unsatisfiable, prune, satisfiable
from headrace_worker.engine.schema.subschemas import Subschemas, child_pointer
from headrace_worker.engine.schema.value_sets import Array, Key, Node, Object, ValueSet

MAX_NODES = 4000

Nodes = dict[Key, Node]
ROOT: Key = ("#",)


def read_schema(schema: object) -> Nodes:
    """Return every node by its key; the whole is at `ROOT`. Each has values that can be written.

    Raises:
        SchemaRefused: a keyword cannot be enforced, or nothing satisfies the schema.
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
        self._subschemas = Subschemas(schema)
        self._nodes: Nodes = {}
        self._in_progress: set[Key] = set()
        self._unsatisfiable: list[str] = []
        self._folding = SchemaMerger(self._subschemas, self.node, self._unsatisfiable)
        self._reasons: dict[Key, list[str]] = {}
        self._checked_disjoint: set[str] = set()

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
            waiting += [child for value_set in node.value_sets for child in children(value_set)]
        nodes = {key: node for key in reached if (node := self.node(key)) is not None}
        if ROOT not in satisfiable(nodes):
            why = explain_unsatisfiable(nodes, ROOT, self._reasons)
            raise SchemaRefused(f"nothing fulfils the schema: {why}")
        prune(nodes)
        return nodes

    def node(self, key: Key) -> Node | None:
        """Return the node without what is below it; None while it is being read."""
        if key in self._in_progress:
            return None
        if key not in self._nodes:
            self._in_progress.add(key)
            self._nodes[key] = self._fold(key)
            self._in_progress.discard(key)
        return self._nodes[key]

    def _fold(self, key: Key) -> Node:
        node, omitted_types = Node(), set()
        alternatives = self._subschemas.alternatives(key)
        for pointer in dict.fromkeys(each for conjunction in alternatives for each in conjunction):
            if "oneOf" in self._subschemas.get_object(pointer):
                self._require_disjoint(pointer)
        for conjunction in self._subschemas.alternatives(key):
            value_sets, more = self._folding.value_sets(conjunction)
            self._reasons.setdefault(key, []).extend(self._unsatisfiable)
            self._unsatisfiable.clear()
            node.value_sets += [
                value_set for value_set in value_sets if value_set not in node.value_sets
            ]
            omitted_types |= more
        node.omitted_types = frozenset(omitted_types)
        return node

    def _require_disjoint(self, pointer: str) -> None:
        """Require that a value of one branch of a oneOf satisfies no other branch."""
        if pointer in self._checked_disjoint:
            return
        self._checked_disjoint.add(pointer)
        branches = [
            child_pointer(pointer, "oneOf", i)
            for i in range(len(self._subschemas.get_object(pointer)["oneOf"]))
        ]
        nodes = [self.node((branch,)) for branch in branches]
        needed: dict[str, set[str]] = {branch: set() for branch in branches}
        for (i, one), (j, other) in combinations(enumerate(nodes), 2):
            for written, other_branch, branch in (
                (one, other, branches[i]),
                (other, one, branches[j]),
            ):
                names = distinguishing_names(written, other_branch, self.node)
                if names is None:
                    raise SchemaRefused(
                        f"oneOf at {pointer} cannot be enforced: its schemas {i} and {j} may hold"
                        " at once; write anyOf, or give each a constant of its own"
                    )
                needed[branch] |= names
        for branch, names in needed.items():
            if names:
                self._subschemas.require(branch, sorted(names))
                # Some may have been read on the way here, without it.
                self._nodes.clear()


def children(value_set: ValueSet) -> list[Key]:
    """Return the children of an array or object."""
    match value_set:
        case Array(prefix, rest):
            return [*prefix, *([] if rest is None else [rest])]
        case Object():
            return [
                *value_set.properties.values(),
                *(additional.value for additional in value_set.additional),
            ]
    return []
