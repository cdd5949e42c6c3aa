"""Write the values of a schema as a plainer schema, for llguidance. Pure."""

from __future__ import annotations

from typing import Any

from headrace_worker.engine.regex.automaton import Automaton, is_simple, regex_of
from headrace_worker.engine.regex.value_regex import (
    ANY_TEXT,
    Alt,
    And,
    Cat,
    Chars,
    Not,
    Regex,
    Repeat,
    UnsupportedPattern,
)
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

_LARGE = 10**15


Refs = dict[Key, dict[str, str]]


def to_llguidance_schema(nodes: Nodes) -> dict[str, Any]:
    """Return the schema. Raises SchemaRefused for what llguidance cannot express."""
    refs: Refs = {key: {"$ref": f"#/$defs/v{i}"} for i, key in enumerate(nodes)}
    defs: dict[str, Any] = {}
    for i, node in enumerate(nodes.values()):
        plain = [_value_set(value_set, refs) for value_set in node.value_sets]
        defs[f"v{i}"] = plain[0] if len(plain) == 1 else {"anyOf": plain}
    return {**refs[ROOT], "$defs": defs}


def _value_set(value_set: ValueSet, refs: Refs) -> dict[str, Any]:
    match value_set:
        case Constants(values):
            return {"enum": list(values)}
        case Number():
            return _number(value_set)
        case String():
            return _text(value_set)
        case Array(prefix, rest, minimum, maximum):
            plain: dict[str, Any] = {"type": "array", "minItems": minimum}
            if prefix:
                plain["prefixItems"] = [refs[key] for key in prefix]
            plain["items"] = False if rest is None else refs[rest]
            return plain if maximum is None else plain | {"maxItems": maximum}
    return _object(value_set, refs)


def _number(value_set: Number) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": "integer" if value_set.integer else "number"}
    for bound, name in (
        (value_set.low, "exclusiveMinimum" if value_set.exclusive_low else "minimum"),
        (value_set.high, "exclusiveMaximum" if value_set.exclusive_high else "maximum"),
    ):
        if bound is not None:
            short = bound.denominator == 1 and abs(bound) < 2**63
            plain[name] = int(bound) if short else float(bound)
    if not value_set.integer:
        # Why: it writes any exponent where there is no bound, and a double does not hold it.
        if value_set.low is None and (value_set.high is None or value_set.high > -_LARGE):
            plain["minimum"] = -_LARGE
        if value_set.high is None and (value_set.low is None or value_set.low < _LARGE):
            plain["maximum"] = _LARGE
    if value_set.multiple_of > 1:
        plain["multipleOf"] = value_set.multiple_of
    return plain


def _text(value_set: String) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": "string"}
    if value_set.minimum:
        plain["minLength"] = value_set.minimum
    if value_set.maximum is not None:
        plain["maxLength"] = value_set.maximum
    parts = [part for part in value_set.parts if part != ANY_TEXT]
    if len(parts) > 1 and not all(map(is_simple, parts)):
        parts = [And(tuple(parts))]
    patterns = [{"pattern": _pattern(part)} for part in parts]
    if len(patterns) == 1:
        return plain | patterns[0]
    return plain | {"allOf": patterns} if patterns else plain


def _object(value_set: Object, refs: Refs) -> dict[str, Any]:
    declared = {name: refs[key] for name, key in value_set.properties.items()}
    plain: dict[str, Any] = {
        "type": "object",
        "properties": {**declared, **dict.fromkeys(value_set.forbidden, False)},
        "required": [name for name in value_set.properties if name in value_set.required],
        "additionalProperties": False,
    }
    for each in value_set.additional:
        if each.names is None:
            plain["additionalProperties"] = refs[each.value]
        else:
            patterns = plain.setdefault("patternProperties", {})
            patterns[_pattern(each.names)] = refs[each.value]
    if value_set.minimum > len(value_set.required):
        plain["minProperties"] = value_set.minimum
    if value_set.maximum is not None:
        plain["maxProperties"] = value_set.maximum
    return plain


def _pattern(regex: Regex) -> str:
    try:
        form = expression_or_automaton(regex)
        whole = regex_of(form) if isinstance(form, Automaton) else form
    except UnsupportedPattern as error:
        raise SchemaRefused(f"a pattern cannot be enforced: {error}") from error
    return f"^(?:{_regex(whole)})$"


def _regex(regex: Regex) -> str:
    match regex:
        case Chars(ranges):
            return f"[{''.join(_range(*each) for each in ranges)}]"
        case Cat(parts):
            return "".join(_regex(part) for part in parts)
        case Alt(parts):
            return f"(?:{'|'.join(_regex(part) for part in parts)})"
        case Repeat(inner, minimum, maximum):
            return f"(?:{_regex(inner)}){{{minimum},{'' if maximum is None else maximum}}}"
        case And() | Not():
            raise AssertionError("an automaton's expression has none")


def _range(first: int, last: int) -> str:
    # Why: 1.9.1 takes a class with all control characters for one with quotes and backslashes.
    if first == 0 and last >= 31:
        first = 1
    return f"\\x{{{first:x}}}-\\x{{{last:x}}}"
