"""Numbers within bounds, digit by digit, as rules of a grammar. Pure.

Decimals with so many places are integers that have a point before the last so many digits: with one
place, "above 0.5 and at most 12" is from 06 to 120. So all bounds are inclusive integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import count

from headrace_worker.engine.schema.value_sets import Number

AddRule = Callable[[str, str], None]
"""Adds a rule by name and body; a known name has the same body."""

EXACT_DIGITS = 15
"""Digits that a double keeps; more could round over a bound."""
FRACTION_DIGITS = 6
ANY_INTEGER = '"-"? ("0" | [1-9] [0-9]*)'
# Bounded, so that a double can hold it.
ANY_NUMBER = '"-"? ("0" | [1-9] [0-9]{0,99}) ("." [0-9]+)? ([eE] [+-]? [0-9]{1,2})?'


def number_rule(number: Number, add: AddRule) -> str:
    """Return the body of a rule for these numbers; `add` adds the rules that it needs."""
    if number.low is None and number.high is None and number.multiple_of == 1:
        return ANY_INTEGER if number.integer else ANY_NUMBER
    mirrored = replace(
        number,
        low=None if number.high is None else -number.high,
        high=None if number.low is None else -number.low,
        exclusive_low=number.exclusive_high,
        exclusive_high=number.exclusive_low,
    )
    options = _from_zero(number, add)
    options += [f'"-" {option}' for option in _from_zero(mirrored, add)]
    return " | ".join(options)


def _from_zero(number: Number, add: AddRule) -> list[str]:
    """Return those of 0 and above: an option for each count of digits before the point."""
    if number.low is None or number.low < 0:
        number = replace(number, low=Fraction(0), exclusive_low=False)
    assert number.low is not None
    places = 0 if number.integer else _places(number.low, number.high)
    scale = 10**places
    low = int(number.low * scale) + number.exclusive_low
    high = None if number.high is None else int(number.high * scale) - number.exclusive_high
    if high is not None and high < low:
        return []
    digits = _Digits(number.multiple_of, places, add)
    longest = len(str((low if high is None else high) // scale))
    options = []
    for length in range(len(str(low // scale)), longest + 1):
        first = max(low, 10 ** (length - 1) * scale if length > 1 else 0)
        last = 10**length * scale - 1
        last = last if high is None else min(high, last)
        width = length + places
        options.append(digits.between(f"{first:0{width}}", f"{last:0{width}}"))
    if high is None:
        first = 10**longest * scale
        options.append(digits.between(f"{first}", f"{10 * first - 1}", more=True))
    return [option for option in options if option is not None]


def _places(low: Fraction, high: Fraction | None) -> int:
    """Return how many decimal places the bounds have, or no rounding carries over them."""
    exact = EXACT_DIGITS - len(str(int(low if high is None else high)))
    own = (
        next(places for places in count() if (bound * 10**places).denominator == 1)
        for bound in (low, high or Fraction(0))
    )
    return max(*own, min(FRACTION_DIGITS, exact))


class _Digits:
    """Rules for multiples of `step` between two bounds, with a point before the last `places`
    digits."""

    def __init__(self, step: int, places: int, add: AddRule) -> None:
        self._step, self._places, self._add = step, places, add
        self._known: dict[str, str | None] = {}

    def between(self, low: str, high: str, *, remainder: int = 0, more: bool = False) -> str | None:
        """Return digits from `low` to `high`, which have as many; None if there are none.

        `remainder` is what the digits before leave; with `more`, any digits may follow those.
        """
        left = len(low) - self._places
        if left == 0 and self._step == 1:
            return _decimals(low, high, '"." ')
        if left == 0 and more:
            return self._any_digits(remainder)
        if left == 0:
            return '""' if remainder == 0 else None
        free = _is_free(low, high)
        if free and self._step == 1:
            decimals = _decimals(low[left:], high[left:], '"." ')
            return f"[0-9]{{{left},{'' if more else left}}} {decimals}"
        name = f"by_{self._step}_{remainder}_{left}{'_more' if more else ''}"
        if free and name in self._known:
            return self._known[name]
        options = _by_first_digit(
            low,
            high,
            lambda digit, low, high: self.between(
                low, high, remainder=(remainder * 10 + digit) % self._step, more=more
            ),
        )
        if not free:
            return f"({' | '.join(options)})" if options else None
        self._known[name] = name if options else None
        if options:
            self._add(name, " | ".join(options))
        return self._known[name]

    def _any_digits(self, remainder: int) -> str:
        """Return the rule of any digits. These rules lead to one another: all are added at once."""
        names = [f"by_{self._step}_{each}_more" for each in range(self._step)]
        if names[0] not in self._known:
            self._known[names[0]] = names[0]
            for each, name in enumerate(names):
                options = _by_first_digit(
                    "0", "9", lambda digit, *_, each=each: names[(each * 10 + digit) % self._step]
                )
                self._add(name, " | ".join(options if each else ['""', *options]))
        return names[remainder]


def _is_free(low: str, high: str) -> bool:
    """Return whether all digits are allowed."""
    return not low.strip("0") and not high.strip("9")


def _by_first_digit(low: str, high: str, rest: Callable[[int, str, str], str | None]) -> list[str]:
    """Return options of a digit and the rest after it; digits with the same rest are one."""
    digits: dict[str, str] = {}
    first, last, left = int(low[0]), int(high[0]), len(low) - 1
    for digit in range(first, last + 1):
        following = rest(
            digit,
            low[1:] if digit == first else "0" * left,
            high[1:] if digit == last else "9" * left,
        )
        if following is not None:
            digits[following] = digits.get(following, "") + str(digit)
    return [f"[{each}] {following}" for following, each in digits.items()]


def _decimals(low: str, high: str, point: str = "") -> str:
    """Return `point` and decimal places from `low` to `high`; zeros at the end may be missing."""
    if not low:
        return '""'
    if _is_free(low, high):
        digits = f"[0-9]{{1,{len(low)}}}"
    else:
        options = _by_first_digit(low, high, lambda _, low, high: _decimals(low, high))
        digits = f"({' | '.join(options)})"
    return f"{point}{digits}" if low.strip("0") else f"({point}{digits})?"
