"""Numbers within bounds, digit by digit, as rules of a grammar. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

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
    options: list[str] = []
    for sign, half in (("", _half(number)), ('"-" ', _half(_mirrored(number)))):
        if half is None:
            continue
        if number.integer:
            options += [sign + each for each in _integers(half, add)]
        else:
            options += [sign + each for each in _decimals(half)]
    return " | ".join(options)


def _mirrored(number: Number) -> Number:
    low = None if number.high is None else -number.high
    high = None if number.low is None else -number.low
    return replace(
        number,
        low=low,
        high=high,
        exclusive_low=number.exclusive_high,
        exclusive_high=number.exclusive_low,
    )


def _half(number: Number) -> Number | None:
    """Return the numbers of 0 and above; None if there are none."""
    if number.low is None or number.low < 0:
        number = replace(number, low=Fraction(0), exclusive_low=False)
    return None if number.is_empty else number


def _integers(number: Number, add: AddRule) -> list[str]:
    assert number.low is not None
    low, high = int(number.low), None if number.high is None else int(number.high)
    step = number.multiple_of
    multiples = _Multiples(step, add)
    found = []
    for prefix, first, last, free, unbounded in _spans(low, high):
        if step == 1:
            digits = f"[0-9]{{{free},}}" if unbounded else f"[0-9]{{{free}}}" if free else ""
            found.append(f"{_quoted(prefix)} [{first}-{last}] {digits}".strip())
            continue
        for digit in range(first, last + 1):
            remainder = int(prefix + str(digit)) % step
            if (rest := multiples.rule(remainder, free, unbounded)) is not None:
                found.append(f"{_quoted(prefix + str(digit))} {rest}")
    return found


def _spans(low: int, high: int | None) -> list[tuple[str, int, int, int, bool]]:
    """Return integers as a prefix, a range of one digit, and free digits; True for any more of
    these."""
    spans: list[tuple[str, int, int, int, bool]] = []
    if low == 0:
        spans, low = [("", 0, 0, 0, False)], 1
    longest = len(str(low)) if high is None else len(str(high))
    for length in range(len(str(low)), longest + 1):
        first = max(low, 10 ** (length - 1))
        last = 10**length - 1 if high is None else min(high, 10**length - 1)
        if first <= last:
            spans += [(*span, False) for span in _same_length(str(first), str(last))]
    if high is None:
        spans.append(("", 1, 9, longest, True))
    return spans


def _same_length(low: str, high: str) -> list[tuple[str, int, int, int]]:
    if low == high:
        return [(low[:-1], int(low[-1]), int(low[-1]), 0)]
    length = len(low)
    at = next(i for i in range(length) if low[i] != high[i])
    if low[at:] == "0" * (length - at) and high[at:] == "9" * (length - at):
        return [(low[:at], 0, 9, length - at - 1)]
    low_is_round = low[at + 1 :] == "0" * (length - at - 1)
    high_is_round = high[at + 1 :] == "9" * (length - at - 1)
    first, last = int(low[at]) + (not low_is_round), int(high[at]) - (not high_is_round)
    spans = [(low[:at], first, last, length - at - 1)] if first <= last else []
    if not low_is_round:
        spans += _same_length(low, low[: at + 1] + "9" * (length - at - 1))
    if not high_is_round:
        spans += _same_length(high[: at + 1] + "0" * (length - at - 1), high)
    return spans


class _Multiples:
    """Rules for digits after which the remainder is 0."""

    def __init__(self, step: int, add: AddRule) -> None:
        self._step, self._add = step, add
        self._rules_by_remainder: dict[tuple[int, int, bool], str | None] = {}
        self._all_written = False

    def rule(self, remainder: int, free: int, unbounded: bool) -> str | None:
        """The rule of `free` digits (or unbounded) after `remainder`; None if no digits will do."""
        if free == 0 and not unbounded:
            return '""' if remainder == 0 else None
        if free == 0:
            return self._any_number(remainder)
        key = remainder, free, unbounded
        if key not in self._rules_by_remainder:
            name = f"by_{self._step}_{remainder}_{free}{'_more' if unbounded else ''}"
            options = self._options(remainder, lambda after: self.rule(after, free - 1, unbounded))
            self._rules_by_remainder[key] = name if options else None
            if options:
                self._add(name, " | ".join(options))
        return self._rules_by_remainder[key]

    def _any_number(self, remainder: int) -> str:
        """The rule of any number of digits. They lead to one another: all are written at once."""
        names = [f"by_{self._step}_{each}_more" for each in range(self._step)]
        if not self._all_written:
            self._all_written = True
            for each, name in enumerate(names):
                options = ['""'] if each == 0 else []
                self._add(name, " | ".join([*options, *self._options(each, names.__getitem__)]))
        return names[remainder]

    def _options(self, remainder: int, rule: Callable[[int], str | None]) -> list[str]:
        """A digit and the rule for what is left over then; digits that leave the same together."""
        digits: dict[int, str] = {}
        for digit in range(10):
            after = (remainder * 10 + digit) % self._step
            digits[after] = digits.get(after, "") + str(digit)
        rules = ((which, rule(after)) for after, which in digits.items())
        return [f"[{which}] {name}" for which, name in rules if name is not None]


def _decimals(number: Number) -> list[str]:
    """Return decimals without exponents, with as many digits as no rounding carries over a
    bound."""
    assert number.low is not None
    low, high = number.low, number.high
    whole_low, whole_high = int(low), None if high is None else int(high)
    start, end = _fraction(low - whole_low), "" if high is None else _fraction(high - int(high))
    known = len(str(whole_low if whole_high is None else whole_high))
    places = max(len(start), len(end), min(FRACTION_DIGITS, EXACT_DIGITS - known))
    if whole_high == whole_low:
        tail = _tail(start, end, number.exclusive_low, number.exclusive_high, places)
        return [f"{_quoted(str(whole_low))} {tail}"] if tail else []
    found = []
    if tail := _tail(start, None, number.exclusive_low, False, places):
        found.append(f"{_quoted(str(whole_low))} {tail}")
    if whole_high is None or whole_high - whole_low > 1:
        last = None if whole_high is None else Fraction(whole_high - 1)
        between = Number(True, Fraction(whole_low + 1), last)
        fraction = f'("." [0-9]{{1,{places}}})?' if places > 0 else ""
        found += [f"{each} {fraction}" for each in _integers(between, lambda *_: None)]
    if whole_high is not None and (tail := _tail("", end, False, number.exclusive_high, places)):
        found.append(f"{_quoted(str(whole_high))} {tail}")
    return found


def _tail(
    low: str, high: str | None, exclusive_low: bool, exclusive_high: bool, places: int
) -> str:
    """Return point and digits of fractions from `low` to `high`; empty if there are none."""
    options = ['""'] if _may_end(low, high, exclusive_low, exclusive_high) else []
    if places > 0 and (
        digits := _digits(low, high, exclusive_low, exclusive_high, places, first=True)
    ):
        options.append(f'"." ({digits})')
    return f"({' | '.join(options)})" if options else ""


def _digits(
    low: str | None,
    high: str | None,
    exclusive_low: bool,
    exclusive_high: bool,
    places: int,
    *,
    first: bool = False,
) -> str:
    """What digits may follow; None for a bound that is left behind, "" for one that is reached."""
    minimum = 1 if first else 0
    if low == "" and not exclusive_low:
        low = None
    if low is None and high is None:
        return f"[0-9]{{{minimum},{places}}}"
    options = [] if first or not _may_end(low, high, exclusive_low, exclusive_high) else ['""']
    if places == 0:
        return " | ".join(options)
    from_, to = int((low or "0")[0]), 9 if high is None else int((high or "0")[0])
    for digit in range(from_, to + 1):
        next_low = low[1:] if low is not None and digit == from_ else None
        next_high = high[1:] if high is not None and digit == to else None
        rest = _digits(next_low, next_high, exclusive_low, exclusive_high, places - 1)
        if rest:
            options.append(f'"{digit}" ({rest})')
    return " | ".join(options)


def _may_end(low: str | None, high: str | None, exclusive_low: bool, exclusive_high: bool) -> bool:
    """Return whether only zeros may follow."""
    if low is not None and (exclusive_low or low.strip("0")):
        return False
    return high is None or not exclusive_high or bool(high.strip("0"))


def _fraction(value: Fraction) -> str:
    digits = ""
    while value:
        value *= 10
        digits += str(int(value))
        value -= int(value)
    return digits


def _quoted(digits: str) -> str:
    return f'"{digits}"'
