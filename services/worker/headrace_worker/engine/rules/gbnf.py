"""Write the values of a schema as a grammar in xgrammar's notation (GBNF). Pure."""

from __future__ import annotations

from headrace_worker.engine.regex.automaton import Automaton, complement_of
from headrace_worker.engine.regex.value_regex import ANY_TEXT, Regex
from headrace_worker.engine.rules.number_rules import number_rule
from headrace_worker.engine.rules.object_rules import object_rule
from headrace_worker.engine.rules.string_rules import character_class, literal, regex_rule, to_json
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.reader import ROOT, Nodes
from headrace_worker.engine.schema.subschemas import Key
from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Number,
    Object,
    String,
    ValueSet,
    expression_or_automaton,
)

MAX_RULES = 20_000
_QUOTE = r'"\""'
_HEX = "[0-9a-fA-F]"
_STRING = {
    "string": f"{_QUOTE} string_rest",
    "string_rest": rf'{_QUOTE} | [^"\\\x00-\x1f] string_rest | "\\" escape string_rest',
    # Why the long way: the half of a surrogate pair is no character, and strict parsers reject it.
    "escape": (
        rf'["\\/bfnrt] | "u" ([0-9a-cefA-CEF] {_HEX}{{3}} | [dD] [0-7] {_HEX}{{2}}'
        rf' | [dD] [89abAB] {_HEX}{{2}} "\\u" [dD] [c-fC-F] {_HEX}{{2}})'
    ),
}


def to_gbnf(nodes: Nodes) -> str:
    """Return a grammar of JSON texts that satisfy the schema, with ", " and ": " as separators.

    Raises:
        SchemaRefused: it would have too many rules.
    """
    rules = _Rules(nodes)
    return "\n".join(f"{name} ::= {body}" for name, body in rules.written().items()) + "\n"


class _Rules:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._numbers = {key: i for i, key in enumerate(nodes)}
        self._rules: dict[str, str] = {}
        self._automata: dict[Automaton, str] = {}
        self._objects = 0

    def written(self) -> dict[str, str]:
        self.add("root", self.node(ROOT))
        for name, body in _STRING.items():
            self.add(name, body)
        for key, node in self._nodes.items():
            self.add(self.node(key), " | ".join(self._value_set(s) for s in node.value_sets))
        return self._rules

    def node(self, key: Key) -> str:
        return f"value_{self._numbers[key]}"

    def add(self, name: str, body: str) -> None:
        self._rules[name] = body
        if len(self._rules) > MAX_RULES:
            raise SchemaRefused("the schema is too large to be enforced")

    def _value_set(self, value_set: ValueSet) -> str:
        match value_set:
            case Constants(values):
                return " | ".join(literal(to_json(value)) for value in values)
            case Number():
                return number_rule(value_set, self.add)
            case String():
                return self._text(value_set.regex)
            case Array():
                return self._array(value_set)
        return self._object(value_set)

    def _object(self, value_set: Object) -> str:
        self._objects += 1
        values = {name: self.node(key) for name, key in value_set.properties.items()}
        taken = (*value_set.properties, *value_set.forbidden)
        others = [
            f'{self._name(each.names, taken)} ": " {self.node(each.value)}'
            for each in value_set.additional
        ]
        return object_rule(value_set, values, others, self.add, f"object_{self._objects}")

    def _text(self, regex: Regex) -> str:
        if regex == ANY_TEXT:
            return "string"
        form = expression_or_automaton(regex)
        if isinstance(form, Automaton):
            return f"{_QUOTE} {self._automaton(form)}"
        return f"{_QUOTE} {regex_rule(form)} {_QUOTE}"

    def _name(self, names: Regex | None, taken: tuple[str, ...]) -> str:
        """Return what a name may be that is not declared."""
        if names is not None:
            return self._text(names)
        return f"{_QUOTE} {self._automaton(complement_of(taken))}" if taken else "string"

    def _automaton(self, form: Automaton) -> str:
        if form not in self._automata:
            prefix = self._automata[form] = f"text_{len(self._automata)}"
            for state, transitions in enumerate(form.transitions):
                options = [f"{character_class(ranges)} {prefix}_{to}" for ranges, to in transitions]
                if state in form.accepting:
                    options.append(_QUOTE)
                self.add(f"{prefix}_{state}", " | ".join(options))
        return f"{self._automata[form]}_0"

    def _array(self, value_set: Array) -> str:
        minimum, maximum = value_set.minimum, value_set.maximum
        items = [self.node(key) for key in value_set.prefix[:maximum]]
        rest = "" if value_set.rest is None else self.node(value_set.rest)
        if rest and not items and maximum != 0:
            items = [rest]
        tail = ""
        if rest and (maximum is None or maximum > len(items)):
            most = "" if maximum is None else maximum - len(items)
            tail = f'(", " {rest}){{{max(0, minimum - len(items))},{most}}}'
        for i in range(len(items) - 1, -1, -1):
            separator = '", " ' if i else ""
            body = f"{separator}{items[i]} {tail}".strip()
            tail = body if i < minimum else f"({body})?"
        return f'"[" {tail} "]"'
