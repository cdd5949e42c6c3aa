"""The values that a schema allows at each place, as sets by type. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

from headrace_worker.engine.regex.automaton import Automaton, automaton, is_simple, matches
from headrace_worker.engine.regex.value_regex import (
    ANY_CHARACTER,
    ANY_TEXT,
    And,
    Chars,
    Regex,
    Repeat,
    length_bounds,
)
from headrace_worker.engine.schema.subschemas import Key


class Unsatisfiable(Exception):
    """No value satisfies the subschemas; the message gives reason and place."""


@dataclass(frozen=True, slots=True)
class Constants:
    """One of these values."""

    values: tuple[Any, ...]
    complete: bool = True
    """Whether no other value of the enum fits; False if a pattern was read strictly."""


@dataclass(frozen=True, slots=True)
class Number:
    """Numbers between two bounds, which are inclusive unless `exclusive_low` or `exclusive_high`.

    The bounds of integers are always inclusive integers.
    """

    integer: bool = False
    low: Fraction | None = None
    high: Fraction | None = None
    exclusive_low: bool = False
    exclusive_high: bool = False
    multiple_of: int = 1
    """Of integers."""

    def holds(self, value: int | float) -> bool:
        """Return whether the number is in the set."""
        exact = Fraction(str(value))
        if self.low is not None and (
            exact < self.low or (self.exclusive_low and exact == self.low)
        ):
            return False
        if self.high is not None and (
            exact > self.high or (self.exclusive_high and exact == self.high)
        ):
            return False
        return not self.integer or (exact.denominator == 1 and exact % self.multiple_of == 0)

    @property
    def is_empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        if self.integer:
            return self.high // self.multiple_of < -(-self.low // self.multiple_of)
        return self.low > self.high or (
            self.low == self.high and (self.exclusive_low or self.exclusive_high)
        )


@dataclass(frozen=True, slots=True)
class String:
    """Strings that match all of `parts`."""

    parts: tuple[Regex, ...] = ()
    minimum: int = 0
    maximum: int | None = None

    @property
    def regex(self) -> Regex:
        """Length and patterns as one expression."""
        whole = [part for part in self.parts if part != ANY_TEXT]
        minimum, maximum = length_bounds(And(tuple(whole))) if whole else (0, math.inf)
        longest = self.maximum
        if longest is not None and maximum <= longest:
            longest = None
        if minimum < self.minimum or longest is not None:
            # Bounds that the expressions keep by themselves would only make it larger.
            if len(whole) == 1 and (joined := self._shortened(whole[0])) is not None:
                return joined
            whole.append(Repeat(ANY_CHARACTER, self.minimum, longest))
        return whole[0] if len(whole) == 1 else And(tuple(whole)) if whole else ANY_TEXT

    def _shortened(self, regex: Regex) -> Regex | None:
        """Return a repetition of one character with the length bounds applied."""
        match regex:
            case Repeat(Chars() as character, minimum, maximum):
                bounds = [each for each in (maximum, self.maximum) if each is not None]
                least, most = max(minimum, self.minimum), min(bounds, default=None)
                if most is None or least <= most:
                    return Repeat(character, least, most)
        return None

    def holds(self, value: str) -> bool:
        """Return whether the string is in the set."""
        longest = math.inf if self.maximum is None else self.maximum
        return self.minimum <= len(value) <= longest and all(
            matches(part, value) for part in self.parts
        )

    @property
    def is_empty(self) -> bool:
        """Whether no string matches. Raises UnsupportedPattern if that cannot be decided."""
        if self.maximum is not None and self.minimum > self.maximum:
            return True
        form = expression_or_automaton(self.regex)
        return isinstance(form, Automaton) and form.is_empty


@dataclass(frozen=True, slots=True)
class Array:
    prefix: tuple[Key, ...]
    rest: Key | None
    """Items after `prefix`; None for none."""
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class AdditionalNames:
    """Names that are not declared: those that match `names`, or any other."""

    names: Regex | None
    value: Key


@dataclass(frozen=True, slots=True)
class Object:
    properties: dict[str, Key]
    """In the order in which they are written."""
    required: frozenset[str]
    additional: tuple[AdditionalNames, ...]
    minimum: int = 0
    maximum: int | None = None
    closed: bool = False
    """Whether the schema itself forbids other properties; if not, and `additional` is empty, the
    grammar merely never writes any."""
    forbidden: tuple[str, ...] = ()
    """Undeclared names that must not come."""


ValueSet = Constants | Number | String | Array | Object


@dataclass(slots=True)
class Node:
    value_sets: list[ValueSet] = field(default_factory=list)
    omitted_types: frozenset[str] = frozenset()
    """Types that the schema allows and that are not written, because its keywords are about
    others."""
    reasons: list[str] = field(default_factory=list)
    """Why some subschemas contribute no value."""

    def add(self, value_set: ValueSet) -> None:
        if value_set not in self.value_sets:
            self.value_sets.append(value_set)


def type_of(value: Any) -> str:
    """Return the JSON type of a value; that of an integer is "number"."""
    return _TYPES[type(value)]


_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def frozen(value: Any) -> Any:
    """Return equal results for values that are equal in JSON: 1 is 1.0, and true is not 1."""
    match value:
        case bool():
            return "boolean", value
        case list():
            return "array", tuple(frozen(each) for each in value)
        case dict():
            return "object", frozenset((name, frozen(each)) for name, each in value.items())
    return value


@lru_cache(maxsize=512)
def expression_or_automaton(regex: Regex) -> Regex | Automaton:
    """Return the expression if it can be written part by part; else its automaton.

    Raises:
        UnsupportedPattern: the automaton has too many states.
    """
    return regex if is_simple(regex) else automaton(regex)
