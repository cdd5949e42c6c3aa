"""Pure room: the shapes of a schema as a grammar in xgrammar's notation (GBNF)."""

from __future__ import annotations

from headrace_worker.engine.regex.automaton import Automaton, all_but
from headrace_worker.engine.regex.value_regex import ANY_TEXT, Regex
from headrace_worker.engine.rules.number_rules import number_rule
from headrace_worker.engine.rules.object_rules import ObjectRules
from headrace_worker.engine.rules.string_rules import character, in_json, literal, regex_text
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.reader import ROOT, Nodes
from headrace_worker.engine.schema.value_sets import (
    AdditionalNames,
    Array,
    Constants,
    Key,
    Number,
    String,
    ValueSet,
    spelled,
)

MAX_RULES = 20_000
_QUOTE = r'"\""'
_HEX = "[0-9a-fA-F]"
_STRING = {
    "string": f"{_QUOTE} string_rest",
    "string_rest": rf'{_QUOTE} | [^"\\\x00-\x1f] string_rest | "\\" escape string_rest',
    # Why the long way: the half of a surrogate pair is no character, and strict readers say so.
    "escape": (
        rf'["\\/bfnrt] | "u" ([0-9a-cefA-CEF] {_HEX}{{3}} | [dD] [0-7] {_HEX}{{2}}'
        rf' | [dD] [89abAB] {_HEX}{{2}} "\\u" [dD] [c-fC-F] {_HEX}{{2}})'
    ),
}


def grammar_of(nodes: Nodes) -> str:
    """Texts of JSON that fulfil the schema; it writes ", " and ": ", and no other white space.

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
            if node.shapes:
                self.add(self.node(key), " | ".join(self._shape(s) for s in node.shapes))
        return self._rules

    def node(self, key: Key) -> str:
        return f"value_{self._numbers[key]}"

    def add(self, name: str, body: str) -> None:
        self._rules[name] = body
        if len(self._rules) > MAX_RULES:
            raise SchemaRefused("the schema is too large to be enforced")

    def _shape(self, shape: ValueSet) -> str:
        match shape:
            case Constants(values):
                return " | ".join(literal(in_json(value)) for value in values)
            case Number():
                return number_rule(shape, self.add)
            case String():
                return self._text(shape.regex)
            case Array():
                return self._array(shape)
        self._objects += 1
        prefix = f"object_{self._objects}"
        return ObjectRules(shape, self.node, self._name, self.add, prefix).written()

    def _text(self, regex: Regex) -> str:
        if regex == ANY_TEXT:
            return "string"
        form = spelled(regex)
        if isinstance(form, Automaton):
            return f"{_QUOTE} {self._automaton(form)}"
        return f"{_QUOTE} {regex_text(form)} {_QUOTE}"

    def _name(self, free: AdditionalNames, taken: tuple[str, ...]) -> str:
        """What a name may be that is not declared."""
        if free.names is not None:
            return self._text(free.names)
        return f"{_QUOTE} {self._automaton(all_but(taken))}" if taken else "string"

    def _automaton(self, form: Automaton) -> str:
        if form not in self._automata:
            prefix = self._automata[form] = f"text_{len(self._automata)}"
            for state, edges in enumerate(form.edges):
                options = [f"{character(ranges)} {prefix}_{to}" for ranges, to in edges]
                if state in form.ends:
                    options.append(_QUOTE)
                self.add(f"{prefix}_{state}", " | ".join(options))
        return f"{self._automata[form]}_0"

    def _array(self, shape: Array) -> str:
        prefix = shape.prefix if shape.most is None else shape.prefix[: shape.most]
        items = [self.node(key) for key in prefix]
        least = max(0, shape.least - len(items))
        most = None if shape.most is None else max(0, shape.most - len(items))
        rest = "" if shape.rest is None or most == 0 else self.node(shape.rest)
        if rest and not items:
            items, least, most = [rest], max(0, least - 1), None if most is None else most - 1
        tail = (
            f'(", " {rest}){{{least},{"" if most is None else most}}}' if rest and most != 0 else ""
        )
        for i in range(len(items) - 1, -1, -1):
            separator = '", " ' if i else ""
            body = f"{separator}{items[i]} {tail}".strip()
            tail = body if i < shape.least else f"({body})?"
        return f'"[" {tail} "]"'
