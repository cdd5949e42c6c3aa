"""Merge subschemas that must all hold at one place into the values allowed there. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from headrace_worker.engine.regex.automaton import matches
from headrace_worker.engine.regex.value_regex import Regex, UnsupportedPattern, fullmatch, search
from headrace_worker.engine.schema.formats import FORMATS
from headrace_worker.engine.schema.keywords import MAX_COUNT, TYPES, SchemaRefused
from headrace_worker.engine.schema.object_merging import OBJECTS, ObjectMerger, unevaluated_allowed
from headrace_worker.engine.schema.subschemas import Conjunction, Subschemas, child_pointer
from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Key,
    Node,
    Number,
    String,
    ValueSet,
)

MAX_MULTIPLE = 1000
MAX_DIGITS = 40
NO_BOUND = 10**200
"""Numbers that are written stay within it (see `ANY_NUMBER`)."""
ARRAYS = ("prefixItems", "items", "maxItems", "minItems", "uniqueItems", "unevaluatedItems")
_SPEAKS_OF = {
    "number": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "string": ("maxLength", "minLength", "pattern", "format"),
    "array": ARRAYS,
    "object": OBJECTS,
}


class SchemaMerger:
    """Merges subschemas of one schema; `unsatisfiable` collects why value sets were left out."""

    def __init__(
        self, subschemas: Subschemas, node: Callable[[Key], Node | None], unsatisfiable: list[str]
    ) -> None:
        self._subschemas, self._unsatisfiable = subschemas, unsatisfiable
        self._objects = ObjectMerger(subschemas, node, unsatisfiable)

    def value_sets(self, conjunction: Conjunction) -> tuple[list[ValueSet], set[str]]:
        """Return the value sets, and the types that are allowed and not written."""
        members = [(pointer, self._subschemas.get_object(pointer)) for pointer in conjunction]
        for pointer, schema in members:
            if schema.get("not") not in (None, False):
                if schema["not"] in (True, {}):
                    return self._none(f"not at {pointer} forbids everything"), set()
                raise SchemaRefused(
                    f"not at {pointer} cannot be enforced; write what may stand there"
                )
        types, omitted_types = _types(members)
        if any("enum" in schema or "const" in schema for _, schema in members):
            return self._constants(members, types), set()
        found: list[ValueSet] = []
        for name in types:
            value_set = self._value_set(name, members)
            if value_set is not None:
                found.append(value_set)
        if not types:
            self._none(f"no type is left at {' and '.join(conjunction)}")
        return found, omitted_types

    def _none(self, why: str) -> list[ValueSet]:
        self._unsatisfiable.append(why)
        return []

    def _value_set(self, name: str, members: list[Any]) -> ValueSet | None:
        match name:
            case "null":
                return Constants((None,))
            case "boolean":
                return Constants((True, False))
            case "integer" | "number":
                number = _number(members, integer=name == "integer")
                return self._kept(
                    number, number.is_empty, members, "no number is within the bounds"
                )
            case "string":
                return self._text(members)
            case "array":
                return self._array(members)
        return self._objects.read(members)

    def _kept(
        self, value_set: ValueSet, empty: bool, members: list[Any], why: str
    ) -> ValueSet | None:
        if empty:
            self._unsatisfiable.append(
                f"{why} at {' and '.join(pointer for pointer, _ in members)}"
            )
            return None
        return value_set

    def _text(self, members: list[Any]) -> ValueSet | None:
        text = String(
            tuple(dict.fromkeys(part for member in members for part in parts_of(*member))),
            int(max((schema.get("minLength", 0) for _, schema in members), default=0)),
            _minimum(schema.get("maxLength") for _, schema in members),
        )
        pointer = members[0][0] if members else "#"
        try:
            empty = text.is_empty
        except UnsupportedPattern as error:
            at = next((p for p, s in members if "pattern" in s), pointer)
            raise SchemaRefused(f"pattern at {at} cannot be enforced: {error}") from error
        return self._kept(text, empty, members, "no text has such a pattern and length")

    def _array(self, members: list[Any]) -> ValueSet | None:
        lists = [_items(pointer, schema) for pointer, schema in members]
        minimum = int(max((schema.get("minItems", 0) for _, schema in members), default=0))
        maximum = _minimum(schema.get("maxItems") for _, schema in members)
        count = max((len(prefix) for prefix, _ in lists), default=0)
        prefix = []
        for i in range(count):
            at = [p[i] if i < len(p) else rest for p, rest in lists]
            prefix.append(tuple(dict.fromkeys(each for each in at if each is not None)))
        ends = [rest for _, rest in lists if rest is not None]
        rest: Key | None = tuple(dict.fromkeys(ends))
        if not ends and count and minimum <= count:
            # Nothing says what would follow, and nothing asks for it.
            rest = None
        for pointer, _ in members:
            additional = unevaluated_allowed(
                self._subschemas, pointer, "unevaluatedItems", members, ARRAYS
            )
            if not additional and not ends:
                rest = None
        if any(self._subschemas.get(pointer) is False for pointer in ends):
            rest = None
        for pointer, schema in members:
            longest = (
                maximum if rest is not None else min(count, count if maximum is None else maximum)
            )
            if schema.get("uniqueItems") and (longest is None or longest > 1):
                raise SchemaRefused(
                    f"uniqueItems at {pointer} cannot be enforced for several items"
                )
        short = (maximum is not None and minimum > maximum) or (rest is None and minimum > count)
        return self._kept(
            Array(tuple(prefix), rest, minimum, maximum), short, members, "no array is long enough"
        )

    def _constants(self, members: list[Any], types: list[str]) -> list[ValueSet]:
        lists = [schema["enum"] for _, schema in members if "enum" in schema]
        lists += [[schema["const"]] for _, schema in members if "const" in schema]
        kept: list[Any] = []
        complete = True
        for value in lists[0]:
            _check_constant(value, members)
            fits = _type_fits(value, types) and all(
                any(same(value, each) for each in others) for others in lists[1:]
            )
            if fits and isinstance(value, int | float) and not isinstance(value, bool):
                fits = _number(members, integer=False).holds(value)
            if fits and isinstance(value, str):
                fits = self._holds(value, members)
                complete = complete and fits
            if fits and not any(same(value, each) for each in kept):
                kept.append(value)
        if kept:
            return [Constants(tuple(kept), complete)]
        return self._none(
            f"no value of enum or const at {' and '.join(pointer for pointer, _ in members)} fits"
            " what stands beside it"
        )

    def _holds(self, value: str, members: list[Any]) -> bool:
        for pointer, schema in members:
            if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
                return False
            if not all(matches(part, value) for part in parts_of(pointer, schema)):
                return False
        return True


def parts_of(pointer: str, schema: dict[str, Any]) -> list[Regex]:
    """Return what `pattern` and `format` require of a string. Raises SchemaRefused."""
    parts = []
    if schema.get("format") in FORMATS:
        parts.append(fullmatch(FORMATS[schema["format"]]))
    if "pattern" in schema:
        try:
            parts.append(search(schema["pattern"]))
        except UnsupportedPattern as error:
            raise SchemaRefused(f"pattern at {pointer} cannot be enforced: {error}") from error
    return parts


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal in JSON: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(one == other)


def _types(members: list[Any]) -> tuple[list[str], set[str]]:
    """Return the types that may come; and those that may, but that no keyword is about."""
    left = set(TYPES)
    explicit = False
    for _, schema in members:
        if "type" in schema:
            given = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            wide = {*given, *(("integer",) if "number" in given else ())}
            left, explicit = left & wide, True
    if "number" in left:
        left.discard("integer")
    omitted_types: set[str] = set()
    spoken = {
        name
        for name, keywords in _SPEAKS_OF.items()
        for _, schema in members
        if any(word in schema for word in keywords)
    }
    if spoken and not explicit and not any("enum" in s or "const" in s for _, s in members):
        left, omitted_types = left & spoken, left - spoken
    return [name for name in TYPES if name in left], omitted_types


def _type_fits(value: Any, types: list[str]) -> bool:
    match value:
        case None:
            return "null" in types
        case bool():
            return "boolean" in types
        case int() | float():
            return "number" in types or ("integer" in types and value == int(value))
        case str():
            return "string" in types
        case list():
            return "array" in types
    return "object" in types


def _check_constant(value: Any, members: list[Any]) -> None:
    kind = "array" if isinstance(value, list) else "object" if isinstance(value, dict) else ""
    for pointer, schema in members:
        for word in _SPEAKS_OF.get(kind, ()):
            if word in schema:
                raise SchemaRefused(
                    f"{word} at {pointer} cannot be enforced beside an enum or const"
                )


def _number(members: list[Any], *, integer: bool) -> Number:
    low: tuple[Fraction, bool] | None = None
    high: tuple[Fraction, bool] | None = None
    multiple = 1
    for pointer, schema in members:
        for name, exclusive in (("minimum", False), ("exclusiveMinimum", True)):
            if name in schema:
                bound = Fraction(str(schema[name])), exclusive
                if bound[0] <= -NO_BOUND and not integer:
                    continue
                low = bound if low is None else max(low, bound)
        for name, exclusive in (("maximum", True), ("exclusiveMaximum", False)):
            if name in schema:
                bound = Fraction(str(schema[name])), exclusive
                if bound[0] >= NO_BOUND and not integer:
                    continue
                high = bound if high is None else min(high, bound)
        if "multipleOf" in schema:
            step = schema["multipleOf"]
            if step != int(step) or step > MAX_MULTIPLE:
                raise SchemaRefused(
                    f"multipleOf at {pointer} cannot be enforced; it may be an integer up to"
                    f" {MAX_MULTIPLE}"
                )
            multiple, integer = math.lcm(multiple, int(step)), True
            if multiple > MAX_MULTIPLE:
                raise SchemaRefused(
                    f"multipleOf at {pointer}, with others, is above {MAX_MULTIPLE}"
                )
    for each in (low, high):
        if each is not None and _digits(each[0]) > MAX_DIGITS:
            where = " and ".join(pointer for pointer, _ in members)
            raise SchemaRefused(f"a bound at {where} has more than {MAX_DIGITS} digits")
    above, below_ = bool(low and low[1]), bool(high and not high[1])
    first, last = low and low[0], high and high[0]
    if integer:
        if first is not None:
            first = Fraction(math.floor(first) + 1 if above else math.ceil(first))
        if last is not None:
            last = Fraction(math.ceil(last) - 1 if below_ else math.floor(last))
        return Number(True, first, last, multiple_of=multiple)
    return Number(False, first, last, above, below_)


def _digits(value: Fraction) -> int:
    return max(len(str(abs(int(value)))), len(str(value.denominator)))


def _items(pointer: str, schema: dict[str, Any]) -> tuple[list[str], str | None]:
    """Return the pointers of the first items, and of the rest; None if nothing is said of it."""
    items = schema.get("items")
    if isinstance(items, list):
        prefix = [child_pointer(pointer, "items", i) for i in range(len(items))]
        more = "additionalItems" in schema
        return prefix, child_pointer(pointer, "additionalItems") if more else None
    prefix = [
        child_pointer(pointer, "prefixItems", i) for i in range(len(schema.get("prefixItems", ())))
    ]
    return prefix, child_pointer(pointer, "items") if "items" in schema else None


def _minimum(values: Any) -> int | None:
    counts = (int(value) for value in values if value is not None and value <= MAX_COUNT)
    return min(counts, default=None)
