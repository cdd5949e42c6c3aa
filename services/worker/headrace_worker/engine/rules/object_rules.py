"""The properties of an object, in order and number, as rules of a grammar. Pure."""

from __future__ import annotations

from collections.abc import Callable

from headrace_worker.engine.rules.number_rules import AddRule
from headrace_worker.engine.rules.string_rules import literal, to_json
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.value_sets import AdditionalNames, Key, Object

MAX_STATES = 5000


class ObjectRules:
    """One rule for each state: names passed, and properties written, counted as far as it
    matters."""

    def __init__(
        self,
        value_set: Object,
        node: Callable[[Key], str],
        name: Callable[[AdditionalNames, tuple[str, ...]], str],
        add: AddRule,
        prefix: str,
    ) -> None:
        """`prefix` begins the names of its rules."""
        self._value_set, self._node, self._add, self._prefix = value_set, node, add, prefix
        taken = (*value_set.properties, *value_set.forbidden)
        self._additional = [
            f'{name(additional, taken)} ": " {node(additional.value)}'
            for additional in value_set.additional
        ]
        self._names = list(value_set.properties)
        self._counted = max(1, value_set.minimum, value_set.maximum or 0)
        self._known: dict[tuple[int, int], str | None] = {}

    def written(self) -> str:
        """Return the body of a rule."""
        if (len(self._names) + 1) * (self._counted + 1) > MAX_STATES:
            raise SchemaRefused("minProperties or maxProperties is too large to be enforced")
        # From the end, so that what comes next is known.
        for passed_count in range(len(self._names), -1, -1):
            for written_count in range(self._counted, -1, -1):
                self._known[passed_count, written_count] = self._state(passed_count, written_count)
        start = self._known[0, 0]
        assert start is not None, "an object that nothing fulfils"
        return f'"{{" {start} "}}"'

    def _state(self, passed_count: int, written_count: int) -> str | None:
        """Return the rule's name; None if the object cannot be completed from there."""
        options = (
            self._end(written_count)
            if passed_count == len(self._names)
            else self._next(passed_count, written_count)
        )
        if not options:
            return None
        name = f"{self._prefix}_{passed_count}_{written_count}"
        self._add(name, " | ".join(options))
        return name

    def _next(self, passed_count: int, written_count: int) -> list[str]:
        name = self._names[passed_count]
        options = []
        if self._value_set.maximum is None or written_count < self._value_set.maximum:
            following = self._known[passed_count + 1, min(written_count + 1, self._counted)]
            if following is not None:
                value = self._node(self._value_set.properties[name])
                key = literal(f"{', ' if written_count else ''}{to_json(name)}: ")
                options.append(f"{key} {value} {following}")
        if name not in self._value_set.required:
            skipped = self._known[passed_count + 1, written_count]
            if skipped is not None:
                options.append(skipped)
        return options

    def _end(self, written_count: int) -> list[str]:
        """Return what may come after the declared names."""
        minimum, maximum = self._value_set.minimum, self._value_set.maximum
        # A name that is not declared may come twice: it counts once.
        options = ['""'] if written_count >= minimum else []
        if (
            not self._additional
            or (maximum is not None and written_count >= maximum)
            or written_count + 1 < minimum
        ):
            return options
        one = f"({' | '.join(self._additional)})"
        left = "" if maximum is None else maximum - written_count - 1
        first = one if written_count == 0 else f'", " {one}'
        more = f'(", " {one}){{0,{left}}}' if left != 0 else ""
        return [*options, f"{first} {more}"]
