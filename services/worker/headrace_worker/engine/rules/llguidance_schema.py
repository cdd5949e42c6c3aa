"""Pure room: the shapes of a schema as a plainer schema, for llguidance."""

from __future__ import annotations

from typing import Any

from headrace_worker.engine.regex.automaton import Automaton, is_plain, regex_of
from headrace_worker.engine.regex.value_regex import (
    ANY_TEXT,
    Alt,
    And,
    Cat,
    Chars,
    Not,
    Regex,
    Repeat,
    UntranslatedPattern,
)
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.reader import ROOT, Nodes
from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Key,
    Number,
    Object,
    String,
    ValueSet,
    spelled,
)

_LARGE = 10**15


def plain_schema(nodes: Nodes) -> dict[str, Any]:
    """Raises SchemaRefused for what llguidance cannot be told."""
    names = {key: f"v{i}" for i, key in enumerate(nodes)}
    defs = {names[key]: _node(node.shapes, names) for key, node in nodes.items()}
    return {"$ref": f"#/$defs/{names[ROOT]}", "$defs": defs}


def _node(shapes: list[ValueSet], names: dict[Key, str]) -> Any:
    if not shapes:
        return False
    plain = [_shape(shape, names) for shape in shapes]
    return plain[0] if len(plain) == 1 else {"anyOf": plain}


def _shape(shape: ValueSet, names: dict[Key, str]) -> dict[str, Any]:
    match shape:
        case Constants(values):
            return {"enum": list(values)}
        case Number():
            return _number(shape)
        case String():
            return _text(shape)
        case Array(prefix, rest, least, most):
            plain: dict[str, Any] = {"type": "array", "minItems": least}
            if prefix:
                plain["prefixItems"] = [_ref(key, names) for key in prefix]
            plain["items"] = False if rest is None else _ref(rest, names)
            return plain if most is None else plain | {"maxItems": most}
    return _object(shape, names)


def _ref(key: Key, names: dict[Key, str]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{names[key]}"}


def _number(shape: Number) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": "integer" if shape.integer else "number"}
    for bound, name in (
        (shape.low, "exclusiveMinimum" if shape.above else "minimum"),
        (shape.high, "exclusiveMaximum" if shape.below else "maximum"),
    ):
        if bound is not None:
            short = bound.denominator == 1 and abs(bound) < 2**63
            plain[name] = int(bound) if short else float(bound)
    if not shape.integer:
        # Why: it writes any exponent where there is no bound, and a double does not hold it.
        if shape.low is None and (shape.high is None or shape.high > -_LARGE):
            plain["minimum"] = -_LARGE
        if shape.high is None and (shape.low is None or shape.low < _LARGE):
            plain["maximum"] = _LARGE
    if shape.multiple_of > 1:
        plain["multipleOf"] = shape.multiple_of
    return plain


def _text(shape: String) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": "string"}
    if shape.least:
        plain["minLength"] = shape.least
    if shape.most is not None:
        plain["maxLength"] = shape.most
    parts = [part for part in shape.parts if part != ANY_TEXT]
    if not parts:
        return plain
    if len(parts) > 1 and all(map(is_plain, parts)):
        return plain | {"allOf": [{"pattern": _pattern(part)} for part in parts]}
    return plain | {"pattern": _pattern(parts[0] if len(parts) == 1 else And(tuple(parts)))}


def _object(shape: Object, names: dict[Key, str]) -> dict[str, Any]:
    properties: dict[str, Any] = {name: _ref(key, names) for name, key in shape.declared.items()}
    properties |= dict.fromkeys(shape.excluded, False)
    plain: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [name for name in shape.declared if name in shape.required],
        "additionalProperties": False,
    }
    patterned = [free for free in shape.free if free.names is not None]
    if patterned:
        plain["patternProperties"] = {
            _pattern(free.names): _ref(free.value, names)
            for free in patterned
            if free.names is not None
        }
    elif shape.free:
        plain["additionalProperties"] = _ref(shape.free[0].value, names)
    if shape.least > len(shape.required):
        plain["minProperties"] = shape.least
    if shape.most is not None:
        plain["maxProperties"] = shape.most
    return plain


def _pattern(regex: Regex) -> str:
    try:
        form = spelled(regex)
        whole = regex_of(form) if isinstance(form, Automaton) else form
    except UntranslatedPattern as error:
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
        case Repeat(inner, least, most):
            return f"(?:{_regex(inner)}){{{least},{'' if most is None else most}}}"
        case And() | Not():
            raise AssertionError("an automaton's expression has none")


def _range(first: int, last: int) -> str:
    # Why: 1.9.1 takes a class with all control characters for one with quotes and backslashes.
    if first == 0 and last >= 31:
        first = 1
    return f"\\x{{{first:x}}}-\\x{{{last:x}}}"
