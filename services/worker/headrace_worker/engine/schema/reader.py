"""Read a JSON Schema: the values allowed at every place. Pure.

Each node is a set of subschemas that must all hold. So a `$ref` beside other keywords, `allOf`, and
names that several subschemas constrain are the same thing, and recursion ends.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

from headrace_worker.engine.schema.disjoint import distinguishing_names
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.merging import SchemaMerger
from headrace_worker.engine.schema.pruning import explain_unsatisfiable, pruned, satisfiable_keys
from headrace_worker.engine.schema.subschemas import Key, Subschemas, child_pointer, key_of
from headrace_worker.engine.schema.value_sets import Array, Node, Object, ValueSet

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
        self._merger = SchemaMerger(self._subschemas, self.node)
        self._nodes: Nodes = {}
        self._in_progress: set[Key] = set()
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
        # Read again: a oneOf that was met later may have narrowed some.
        nodes = {key: node for key in reached if (node := self.node(key)) is not None}
        satisfiable = satisfiable_keys(nodes)
        if ROOT not in satisfiable:
            why = explain_unsatisfiable(nodes, ROOT, satisfiable)
            raise SchemaRefused(f"nothing fulfils the schema: {why}")
        return pruned(nodes, satisfiable)

    def node(self, key: Key) -> Node | None:
        """Return the node without what is below it; None while it is being read."""
        if key in self._in_progress:
            return None
        if key not in self._nodes:
            self._in_progress.add(key)
            self._nodes[key] = self._merged(key)
            self._in_progress.discard(key)
        return self._nodes[key]

    def _merged(self, key: Key) -> Node:
        for pointer in key_of(chain.from_iterable(self._subschemas.alternatives(key))):
            if "oneOf" in self._subschemas.get_object(pointer):
                self._require_disjoint(pointer)
        node = Node()
        for conjunction in self._subschemas.alternatives(key):
            self._merger.merge(conjunction, node)
        return node

    def _require_disjoint(self, pointer: str) -> None:
        """Require that a value of one branch of a oneOf satisfies no other branch."""
        if pointer in self._checked_disjoint:
            return
        self._checked_disjoint.add(pointer)
        count = len(self._subschemas.get_object(pointer)["oneOf"])
        branches = [child_pointer(pointer, "oneOf", i) for i in range(count)]
        nodes = [self.node((branch,)) for branch in branches]
        needed: list[set[str]] = [set() for _ in branches]
        for i, j in combinations(range(count), 2):
            for written, other in ((i, j), (j, i)):
                names = distinguishing_names(nodes[written], nodes[other], self.node)
                if names is None:
                    raise SchemaRefused(
                        f"oneOf at {pointer} cannot be enforced: its schemas {i} and {j} may hold"
                        " at once; write anyOf, or give each a constant of its own"
                    )
                needed[written] |= names
        for branch, names in zip(branches, needed, strict=True):
            if names:
                self._subschemas.require(branch, sorted(names))
                # Some may have been read on the way here, without it.
                self._nodes.clear()


def children(value_set: ValueSet) -> list[Key]:
    """Return the children of an array or object."""
    match value_set:
        case Array(prefix, rest):
            return [*prefix, *([] if rest is None else [rest])]
        case Object(declared, _, additional):
            return [*declared.values(), *(each.value for each in additional)]
    return []
