"""Pure room: what a schema comes to: for each place, the shapes that a value may have there."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

from headrace_worker.engine.regex.automaton import Automaton, automaton, is_simple
from headrace_worker.engine.regex.value_regex import (
    ANY_CHARACTER,
    ANY_TEXT,
    And,
    Chars,
    Not,
    Regex,
    Repeat,
    length_bounds,
)

Key = tuple[str, ...]
"""The places of the schemas that must all hold; the empty one is any value."""


@dataclass(frozen=True, slots=True)
class Constants:
    """One of these values."""

    values: tuple[Any, ...]
    complete: bool = True
    """No other value of the enum fits either; False where an expression was read narrowly."""


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
        """Whether the number is one of these."""
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
    """All of `parts` hold for its value."""

    parts: tuple[Regex, ...] = ()
    minimum: int = 0
    maximum: int | None = None

    @property
    def regex(self) -> Regex:
        """Length and parts as one."""
        whole = [part for part in self.parts if part != ANY_TEXT]
        minimum, maximum = length_bounds(And(tuple(whole))) if whole else (0, None)
        longest = (
            self.maximum
            if self.maximum is None or maximum is None or maximum > self.maximum
            else None
        )
        if minimum < self.minimum or longest is not None:
            # Bounds that the expressions keep by themselves would only make it larger.
            whole.append(Repeat(ANY_CHARACTER, self.minimum, longest))
        if len(whole) == 2 and (joined := _shortened(whole[0], self)) is not None:
            return joined
        return whole[0] if len(whole) == 1 else And(tuple(whole)) if whole else ANY_TEXT

    @property
    def is_empty(self) -> bool:
        """Raises UnsupportedPattern where it cannot be told."""
        if self.maximum is not None and self.minimum > self.maximum:
            return True
        form = expression_or_automaton(self.regex)
        return isinstance(form, Automaton) and form.is_empty


@dataclass(frozen=True, slots=True)
class Array:
    prefix: tuple[Key, ...]
    rest: Key | None
    """What comes after `prefix`; None for nothing."""
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class AdditionalNames:
    """Names that are not declared: those of `names`, or any but the declared ones."""

    names: Regex | None
    value: Key
    patterns: tuple[str, ...] = ()
    """Which patternProperties the names match."""


@dataclass(frozen=True, slots=True)
class Object:
    properties: dict[str, Key]
    """In the order in which they come."""
    required: frozenset[str]
    additional: tuple[AdditionalNames, ...]
    minimum: int = 0
    maximum: int | None = None
    closed: bool = False
    """Whether the schema itself forbids other properties; if not, and `additional` is empty, the
    grammar merely never writes any."""
    forbidden: tuple[str, ...] = ()
    """Names that may not come, of those that are not declared."""


ValueSet = Constants | Number | String | Array | Object


@dataclass(slots=True)
class Node:
    value_sets: list[ValueSet] = field(default_factory=list)
    omitted_types: frozenset[str] = frozenset()
    """Types that the schema allows and that are not written, because it speaks of others."""


@lru_cache(maxsize=512)
def expression_or_automaton(regex: Regex) -> Regex | Automaton:
    """The expression itself where it can be written down part by part; else its automaton.

    Raises:
        UnsupportedPattern: the automaton has too many states.
    """
    return regex if is_simple(regex) else automaton(regex)


def _shortened(regex: Regex, text: String) -> Regex | None:
    """The repetition of one character, within the lengths."""
    if isinstance(regex, Not) or not isinstance(regex, Repeat):
        return None
    if not isinstance(regex.inner, Chars):
        return None
    minimum = max(regex.minimum, text.minimum)
    maximum = min((m for m in (regex.maximum, text.maximum) if m is not None), default=None)
    return Repeat(regex.inner, minimum, maximum) if maximum is None or minimum <= maximum else None
