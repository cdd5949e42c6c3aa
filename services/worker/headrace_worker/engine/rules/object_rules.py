"""Pure room: an object's names, in their order and number, as rules of a grammar."""

from __future__ import annotations

from collections.abc import Callable

from headrace_worker.engine.rules.number_rules import AddRule
from headrace_worker.engine.rules.string_rules import in_json, literal
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.value_sets import AdditionalNames, Key, Object

MAX_STATES = 5000


class ObjectRules:
    """A state for each (names passed, properties written); the latter up to where it matters."""

    def __init__(
        self,
        shape: Object,
        node: Callable[[Key], str],
        name: Callable[[AdditionalNames, tuple[str, ...]], str],
        add: AddRule,
        prefix: str,
    ) -> None:
        """`prefix` begins the names of the rules that it needs."""
        self._shape, self._node, self._add, self._prefix = shape, node, add, prefix
        taken = (*shape.declared, *shape.excluded)
        self._free = [f'{name(free, taken)} ": " {node(free.value)}' for free in shape.free]
        self._names = list(shape.declared)
        self._counted = max(1, shape.least, shape.most or 0)
        self._known: dict[tuple[int, int], str | None] = {}

    def written(self) -> str:
        """The right-hand side of a rule."""
        if (len(self._names) + 1) * (self._counted + 1) > MAX_STATES:
            raise SchemaRefused("minProperties or maxProperties is too large to be enforced")
        # From the end, so that what comes next is known.
        for passed in range(len(self._names), -1, -1):
            for had in range(self._counted, -1, -1):
                self._known[passed, had] = self._state(passed, had)
        start = self._known[0, 0]
        assert start is not None, "an object that nothing fulfils"
        return f'"{{" {start} "}}"'

    def _state(self, passed: int, had: int) -> str | None:
        """The rule's name; None where the object cannot be ended from there."""
        options = self._end(had) if passed == len(self._names) else self._next(passed, had)
        if not options:
            return None
        name = f"{self._prefix}_{passed}_{had}"
        self._add(name, " | ".join(options))
        return name

    def _next(self, passed: int, had: int) -> list[str]:
        name = self._names[passed]
        options = []
        if self._shape.most is None or had < self._shape.most:
            following = self._known[passed + 1, min(had + 1, self._counted)]
            if following is not None:
                value = self._node(self._shape.declared[name])
                key = literal(f"{', ' if had else ''}{in_json(name)}: ")
                options.append(f"{key} {value} {following}")
        if name not in self._shape.required:
            skipped = self._known[passed + 1, had]
            if skipped is not None:
                options.append(skipped)
        return options

    def _end(self, had: int) -> list[str]:
        """What may come after the declared names."""
        least, most = self._shape.least, self._shape.most
        # A name that is not declared may come twice: it counts once.
        options = ['""'] if had >= least else []
        if not self._free or (most is not None and had >= most) or had + 1 < least:
            return options
        one = f"({' | '.join(self._free)})"
        left = "" if most is None else most - had - 1
        first = one if had == 0 else f'", " {one}'
        more = f'(", " {one}){{0,{left}}}' if left != 0 else ""
        return [*options, f"{first} {more}"]
