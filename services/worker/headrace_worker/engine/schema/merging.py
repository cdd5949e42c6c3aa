"""Merge subschemas that must all hold at one place into the values allowed there. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from headrace_worker.engine.regex.value_regex import Regex, fullmatch, search
from headrace_worker.engine.schema.formats import FORMATS
from headrace_worker.engine.schema.keywords import (
    KEYWORDS_ABOUT,
    TYPES,
    SchemaRefused,
    refusing_unsupported,
)
from headrace_worker.engine.schema.object_merging import ObjectMerger, unevaluated_allowed
from headrace_worker.engine.schema.subschemas import (
    Key,
    Members,
    Subschemas,
    child_pointer,
    key_of,
)
from headrace_worker.engine.schema.value_sets import (
    Array,
    Constants,
    Node,
    Number,
    String,
    Unsatisfiable,
    ValueSet,
    frozen,
    type_of,
)

MAX_MULTIPLE = 1000
MAX_DIGITS = 40
NO_BOUND = 10**200
"""Numbers that are written stay within it (see `ANY_NUMBER`)."""


class SchemaMerger:
    """Merges subschemas of one schema."""

    def __init__(self, subschemas: Subschemas, get_node: Callable[[Key], Node | None]) -> None:
        self._subschemas = subschemas
        self._objects = ObjectMerger(subschemas, get_node)

    def merge(self, conjunction: Key, node: Node) -> None:
        """Add to the node the values that satisfy the conjunction, or why none do."""
        members = self._subschemas.members(conjunction)
        with _reasons_in(node):
            _require_no_not(members)
            types, omitted_types = _types(members)
            if members.have("enum", "const"):
                node.add(_constants(members, types))
                return
            if not types:
                raise Unsatisfiable(f"no type is left at {members.where}")
            node.omitted_types |= omitted_types
            for name in types:
                with _reasons_in(node):
                    node.add(self._value_set(name, members))

    def _value_set(self, name: str, members: Members) -> ValueSet:
        match name:
            case "null":
                return Constants((None,))
            case "boolean":
                return Constants((True, False))
            case "integer" | "number":
                number = _number(members, integer=name == "integer")
                if number.is_empty:
                    raise Unsatisfiable(f"no number is within the bounds at {members.where}")
                return number
            case "string":
                return _nonempty_string(members)
            case "array":
                return self._array(members)
        return self._objects.merge(members)

    def _array(self, members: Members) -> Array:
        lists = [_items(pointer, schema) for pointer, schema in members.schemas.items()]
        minimum, maximum = members.least("minItems"), members.most("maxItems")
        count = max((len(prefix) for prefix, _ in lists), default=0)
        prefix = tuple(
            key_of(p[i] if i < len(p) else rest for p, rest in lists) for i in range(count)
        )
        ends = [rest for _, rest in lists if rest is not None]
        more = unevaluated_allowed(self._subschemas, members, "unevaluatedItems")
        if ends:
            closed = any(self._subschemas.get(pointer) is False for pointer in ends)
        else:
            # What would follow is described by no keyword, and required by no minimum.
            closed = not more or (count > 0 and minimum <= count)
        longest = maximum
        if closed:
            longest = count if maximum is None else min(count, maximum)
        for pointer, schema in members.schemas.items():
            if schema.get("uniqueItems") and (longest is None or longest > 1):
                raise SchemaRefused(
                    f"uniqueItems at {pointer} cannot be enforced for several items"
                )
        if longest is not None and minimum > longest:
            raise Unsatisfiable(f"no array is long enough at {members.where}")
        return Array(prefix, None if closed else key_of(ends), minimum, maximum)


@contextmanager
def _reasons_in(node: Node) -> Iterator[None]:
    """Add to the node why nothing satisfies what is merged."""
    try:
        yield
    except Unsatisfiable as reason:
        node.reasons.append(str(reason))


def _require_no_not(members: Members) -> None:
    for pointer, schema in members.schemas.items():
        if schema.get("not") in (True, {}):
            raise Unsatisfiable(f"not at {pointer} forbids everything")
        if schema.get("not") not in (None, False):
            raise SchemaRefused(f"not at {pointer} cannot be enforced; write what may stand there")


def _types(members: Members) -> tuple[list[str], set[str]]:
    """Return the types that may come; and those that may, but that no keyword is about."""
    left = set(TYPES)
    explicit = members.values("type")
    for types in explicit:
        given = types if isinstance(types, list) else [types]
        left &= {*given, *(("integer",) if "number" in given else ())}
    if "number" in left:
        left.discard("integer")
    omitted_types: set[str] = set()
    about = {name for name, keywords in KEYWORDS_ABOUT.items() if members.have(*keywords)}
    if about and not explicit and not members.have("enum", "const"):
        left, omitted_types = left & about, left - about
    return [name for name in TYPES if name in left], omitted_types


def _constants(members: Members, types: list[str]) -> Constants:
    first, *others = members.values("enum") + [[each] for each in members.values("const")]
    allowed = [{frozen(each) for each in values} for values in others]
    kept: dict[Any, Any] = {}
    complete = True
    for value in first:
        _require_simple(value, members)
        fits = _has_type(value, types) and all(frozen(value) in values for values in allowed)
        if fits and type_of(value) == "number":
            fits = _number(members, integer=False).holds(value)
        if fits and isinstance(value, str):
            fits = _string(members).holds(value)
            complete = complete and fits
        if fits:
            kept.setdefault(frozen(value), value)
    if not kept:
        raise Unsatisfiable(
            f"no value of enum or const at {members.where} fits what stands beside it"
        )
    return Constants(tuple(kept.values()), complete)


def _require_simple(constant: Any, members: Members) -> None:
    if isinstance(constant, list | dict):
        for pointer, schema in members.schemas.items():
            for keyword in KEYWORDS_ABOUT[type_of(constant)]:
                if keyword in schema:
                    raise SchemaRefused(
                        f"{keyword} at {pointer} cannot be enforced beside an enum or const"
                    )


def _has_type(value: Any, types: list[str]) -> bool:
    name = type_of(value)
    return name in types or (name == "number" and "integer" in types and value == int(value))


def _number(members: Members, *, integer: bool) -> Number:
    multiple, any_size = 1, integer
    for pointer, schema in members.schemas.items():
        if "multipleOf" not in schema:
            continue
        step = schema["multipleOf"]
        if step != int(step) or step > MAX_MULTIPLE:
            raise SchemaRefused(
                f"multipleOf at {pointer} cannot be enforced; it may be an integer up to"
                f" {MAX_MULTIPLE}"
            )
        multiple, integer = math.lcm(multiple, int(step)), True
        if multiple > MAX_MULTIPLE:
            raise SchemaRefused(f"multipleOf at {pointer}, with others, is above {MAX_MULTIPLE}")
    low, above = _bound(members, ("minimum", "exclusiveMinimum"), 1, any_size=any_size)
    high, below = _bound(members, ("maximum", "exclusiveMaximum"), -1, any_size=any_size)
    if not integer:
        return Number(False, low, high, above, below)
    if low is not None:
        low = Fraction(math.floor(low) + 1 if above else math.ceil(low))
    if high is not None:
        high = Fraction(math.ceil(high) - 1 if below else math.floor(high))
    return Number(True, low, high, multiple_of=multiple)


def _bound(
    members: Members, keywords: tuple[str, str], sign: int, *, any_size: bool
) -> tuple[Fraction | None, bool]:
    """Return the narrowest bound, and whether it is exclusive as that of the second keyword is.

    `sign` is 1 for lower bounds, -1 for upper ones.
    """
    bounds = [
        (sign * Fraction(str(value)), exclusive)
        for exclusive, keyword in enumerate(keywords)
        for value in members.values(keyword)
    ]
    narrowest = max((b for b in bounds if any_size or b[0] > -NO_BOUND), default=None)
    if narrowest is None:
        return None, False
    bound, exclusive = narrowest
    if max(len(str(abs(int(bound)))), len(str(bound.denominator))) > MAX_DIGITS:
        raise SchemaRefused(f"a bound at {members.where} has more than {MAX_DIGITS} digits")
    return sign * bound, bool(exclusive)


def _string(members: Members) -> String:
    parts = [
        part for pointer, schema in members.schemas.items() for part in _parts(pointer, schema)
    ]
    return String(
        tuple(dict.fromkeys(parts)), members.least("minLength"), members.most("maxLength")
    )


def _nonempty_string(members: Members) -> String:
    string = _string(members)
    with refusing_unsupported("pattern", members.first_with("pattern")):
        empty = string.is_empty
    if empty:
        raise Unsatisfiable(f"no text has such a pattern and length at {members.where}")
    return string


def _parts(pointer: str, schema: dict[str, Any]) -> list[Regex]:
    """Return what `pattern` and `format` require of a string."""
    parts = []
    if schema.get("format") in FORMATS:
        parts.append(fullmatch(FORMATS[schema["format"]]))
    if "pattern" in schema:
        with refusing_unsupported("pattern", pointer):
            parts.append(search(schema["pattern"]))
    return parts


def _items(pointer: str, schema: dict[str, Any]) -> tuple[list[str], str | None]:
    """Return the pointers of the first items, and of the rest; None if no keyword is about it."""
    first, rest = "prefixItems", "items"
    if isinstance(schema.get("items"), list):
        first, rest = "items", "additionalItems"
    prefix = [child_pointer(pointer, first, i) for i in range(len(schema.get(first, ())))]
    return prefix, child_pointer(pointer, rest) if rest in schema else None
