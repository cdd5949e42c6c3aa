"""Regular expressions of JSON Schema, as sets of string values. Pure.

A `pattern` is searched anywhere; only `^` and `$` anchor it. Python and ECMA-262 differ in what
`.`, `\\w`, `\\d` and `\\s` match; what is built here matches only what both match.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Ranges = tuple[tuple[int, int], ...]
"""Code points, first and last of each range; sorted and disjoint."""

MAX_REPEAT = 10_000


class UnsupportedPattern(Exception):
    """The expression has a part that cannot be enforced; the text names it."""


@dataclass(frozen=True, slots=True)
class Chars:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Cat:
    parts: tuple[Regex, ...] = ()


@dataclass(frozen=True, slots=True)
class Alt:
    parts: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class Not:
    inner: Regex


@dataclass(frozen=True, slots=True)
class Repeat:
    inner: Regex
    minimum: int
    maximum: int | None
    """None: unbounded."""


Regex = Chars | Cat | Alt | And | Not | Repeat

EMPTY = Cat()
"""The empty string."""
NEVER = Chars(())
"""No string at all."""
ANY_CHARACTER = Chars(((0, 0xD7FF), (0xE000, 0x10FFFF)))
"""All but halves of surrogate pairs."""
ANY_TEXT = Repeat(ANY_CHARACTER, 0, None)


def cat(*parts: Regex) -> Regex:
    """Concatenate the parts."""
    flat: list[Regex] = []
    for part in parts:
        if part == NEVER:
            return NEVER
        flat += part.parts if isinstance(part, Cat) else [part]
    return flat[0] if len(flat) == 1 else Cat(tuple(flat))


def literal(text: str) -> Regex:
    """Return an expression for exactly this string."""
    return cat(*(Chars(((ord(c), ord(c)),)) for c in text))


def alternatives(*texts: str) -> Regex:
    """Return an expression for any one of these strings."""
    return Alt(tuple(literal(text) for text in texts))


def invert(ranges: Ranges) -> Ranges:
    """Return all characters but these."""
    left: list[tuple[int, int]] = []
    for first, last in ANY_CHARACTER.ranges:
        for low, high in ranges:
            if high < first or low > last:
                continue
            if low > first:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def merge_ranges(ranges: list[tuple[int, int]]) -> Ranges:
    """Return the same characters, sorted and disjoint."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)


def intersect(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters in both."""
    return invert(merge_ranges([*invert(one), *invert(other)]))


def length_bounds(regex: Regex) -> tuple[float, float]:
    """Return the least and greatest length of its strings."""
    match regex:
        case Chars():
            return 1, 1
        case Not():
            return 0, math.inf
        case Repeat(inner, minimum, maximum):
            low, high = length_bounds(inner)
            times = math.inf if maximum is None else maximum
            return low * minimum, high * times if high and times else 0
    each = [length_bounds(part) for part in regex.parts]
    lows, highs = [low for low, _ in each], [high for _, high in each]
    match regex:
        case Cat():
            return sum(lows), sum(highs)
        case Alt():
            return min(lows), max(highs)
        case And():
            return max(lows), min(highs)


def search(pattern: str, *, permissive: bool = False) -> Regex:
    """Return the values in which the expression is found.

    `permissive` is for what must not match: everything that any dialect takes for a match.

    Raises:
        UnsupportedPattern: it is no regular expression, or has an unsupported part.
    """
    return _Reader(permissive).read(_parsed(pattern), first=True, last=True)


def fullmatch(pattern: str) -> Regex:
    """Return the values that the expression matches as a whole."""
    return _Reader(permissive=False).read(_parsed(pattern), first=False, last=False)


def _parsed(pattern: str) -> list[tuple[Any, Any]]:
    # ECMA-262 writes named groups without the P.
    pattern = re.sub(r"\(\?<(?![=!])", "(?P<", pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsupportedPattern(f"{error}") from error
    if tree.state.flags & ~re.UNICODE.value:
        raise UnsupportedPattern("flags within it")
    return list(tree)


class _Reader:
    """Reads expressions that must match, or, with `permissive`, that must not."""

    def __init__(self, permissive: bool) -> None:
        self._widest = permissive

    def read(self, items: list[tuple[Any, Any]], *, first: bool, last: bool) -> Regex:
        """Return the values of a sequence.

        Any text may stand before it if it is `first` in the whole, and after it if it is `last`.
        """
        left, right = first, last
        while first and items and items[0] in _BEGINS:
            items, left = items[1:], False
        while last and items and items[-1] in _ENDS:
            items, right = items[:-1], False
            # Why: for Python, "$" also stands before a line end that is the last character.
            if self._widest:
                items = [*items, (ops.MAX_REPEAT, (0, 1, [(ops.LITERAL, 10)]))]
                break
        if last and (place := _look_ahead_in(items)) is not None:
            return self._ahead(items, place, starts=first and not left, left=left, right=right)
        if len(items) == 1 and _has_anchor(items[0]):
            return self._unit(items[0], first=left, last=right)
        start: list[Regex] = [ANY_TEXT] if left else []
        if left and items and _has_anchor(items[0]):
            start, items = [self._unit(items[0], first=True)], items[1:]
        end: list[Regex] = [ANY_TEXT] if right else []
        if right and items and _has_anchor(items[-1]):
            end, items = [self._unit(items[-1], last=True)], items[:-1]
        return cat(*start, *(self._unit(item) for item in items), *end)

    def _ahead(
        self, items: list[tuple[Any, Any]], place: int, *, starts: bool, left: bool, right: bool
    ) -> Regex:
        """Return what stands before a look-ahead, then what both it and the rest allow."""
        op, (direction, looked_for) = items[place]
        if direction < 0:
            raise UnsupportedPattern("a look-behind")
        requested = list(looked_for)
        if starts and place == 0 and requested[:1] and requested[0] in _BEGINS:
            # It stands at the beginning already.
            requested = requested[1:]
        negated = op is ops.ASSERT_NOT
        found = _Reader(self._widest != negated).read(requested, first=False, last=True)
        before = self.read(items[:place], first=left, last=False) if place or left else EMPTY
        rest = items[place + 1 :] if right else [*items[place + 1 :], (ops.AT, ops.AT_END)]
        after = self.read(rest, first=False, last=True)
        return cat(before, And((Not(found) if negated else found, after)))

    def _unit(self, item: tuple[Any, Any], *, first: bool = False, last: bool = False) -> Regex:
        op, value = item
        if op in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
            return Chars(self._characters(op, value))
        if op is ops.SUBPATTERN:
            _, more, fewer, inner = value
            if more or fewer:
                raise UnsupportedPattern("flags within it")
            return self.read(list(inner), first=first, last=last)
        if op is ops.BRANCH:
            return Alt(tuple(self.read(list(each), first=first, last=last) for each in value[1]))
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            minimum, maximum, inner = value
            unbounded = maximum is ops.MAXREPEAT
            if minimum > MAX_REPEAT or (not unbounded and maximum > MAX_REPEAT):
                raise UnsupportedPattern(f"a repetition of more than {MAX_REPEAT}")
            return Repeat(
                self.read(list(inner), first=False, last=False),
                minimum,
                None if unbounded else maximum,
            )
        raise UnsupportedPattern(_NAMES.get(op, str(op).lower()))

    def _characters(self, op: Any, value: Any) -> Ranges:
        if op is ops.ANY:
            return invert(((10, 10),) if self._widest else _LINE_ENDS)
        members = value if op is ops.IN else [(ops.LITERAL, value)]
        negated = op is ops.NOT_LITERAL or members[0][0] is ops.NEGATE
        ranges = [
            each
            for member in members[members[0][0] is ops.NEGATE :]
            for each in _in_class(*member, permissive=negated != self._widest)
        ]
        found = merge_ranges(ranges)
        return invert(found) if negated else intersect(found, ANY_CHARACTER.ranges)


def _in_class(op: Any, value: Any, *, permissive: bool) -> Ranges:
    if op is ops.LITERAL:
        return ((value, value),)
    if op is ops.RANGE:
        return (tuple(value),)
    name = str(value).removeprefix("CATEGORY_").removeprefix("UNI_")
    positive = name.removeprefix("NOT_")
    if positive == name:
        return _class(name, permissive=permissive)
    return invert(_class(positive, permissive=not permissive))


def _look_ahead_in(items: list[tuple[Any, Any]]) -> int | None:
    looks = (i for i, (op, _) in enumerate(items) if op in (ops.ASSERT, ops.ASSERT_NOT))
    return next(looks, None)


def _has_anchor(item: tuple[Any, Any]) -> bool:
    op, value = item
    if op is ops.SUBPATTERN:
        return any(_has_anchor(each) for each in value[3])
    if op is ops.BRANCH:
        return any(_has_anchor(each) for branch in value[1] for each in branch)
    return op in (ops.AT, ops.ASSERT, ops.ASSERT_NOT)


@cache
def _class(name: str, *, permissive: bool) -> Ranges:
    """Return the class in ECMA-262, or its widest reading."""
    plain, is_in_widest = _CLASSES[name]
    if not permissive:
        return plain
    widest = (code for code in range(sys.maxunicode + 1) if is_in_widest(chr(code)))
    return merge_ranges([*plain, *((code, code) for code in widest)])


_CLASSES: dict[str, tuple[Ranges, Callable[[str], bool]]] = {
    "SPACE": (((9, 13), (32, 32)), lambda c: c.isspace() or c == "\ufeff"),
    "DIGIT": (((48, 57),), str.isdecimal),
    "WORD": (((48, 57), (65, 90), (95, 95), (97, 122)), str.isalnum),
}
_LINE_ENDS = ((10, 10), (13, 13), (0x2028, 0x2029))
_BEGINS = ((ops.AT, ops.AT_BEGINNING), (ops.AT, ops.AT_BEGINNING_STRING))
_ENDS = ((ops.AT, ops.AT_END), (ops.AT, ops.AT_END_STRING))
_NAMES = {
    ops.AT: "an anchor or boundary within it",
    ops.ASSERT: "a look-ahead within a repetition or before its end",
    ops.ASSERT_NOT: "a look-ahead within a repetition or before its end",
    ops.GROUPREF: "a back-reference",
    ops.GROUPREF_EXISTS: "a conditional group",
    ops.ATOMIC_GROUP: "an atomic group",
    ops.POSSESSIVE_REPEAT: "a possessive repetition",
}
