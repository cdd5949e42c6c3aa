"""Amounts of money: integers of nano-units, which are 1e-9 of a currency's unit. Pure."""

from __future__ import annotations

import re
from fractions import Fraction

NANOS = 10**9
"""In one unit of a currency."""
_AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,18})?", re.ASCII)


def nanos_of(amount: str, *, per: int = 1) -> int:
    """Return an amount in nano-units, exactly.

        nanos_of("12.50") == 12_500_000_000
        nanos_of("0.15", per=1_000_000) == 150

    Args:
        amount: decimal digits with a point, as `12.50`.
        per: how many things it is the price of; what is returned is that of one.

    Raises:
        ValueError: it is no amount, or is no whole number of nano-units.
    """
    if not _AMOUNT.fullmatch(amount):
        raise ValueError(f"{amount[:40]!r} is no amount of money; write one as 12.50")
    nanos = Fraction(amount) * NANOS / per
    if nanos.denominator != 1:
        of_what = "it" if per == 1 else f"one of {per}"
        raise ValueError(
            f"{amount} is finer than can be stored: {of_what} costs {float(nanos):.6g} nano-units"
            " (1e-9), which must be a whole number"
        )
    return nanos.numerator


def amount_text(nanos: int, *, digits: int = 2) -> str:
    """Return an amount with a point, exactly, and with so many digits behind it at least.

    amount_text(12_500_000_000) == "12.50"
    """
    whole, part = divmod(abs(nanos), NANOS)
    behind = f"{part:09d}".rstrip("0").ljust(digits, "0")
    return f"{'-' if nanos < 0 else ''}{whole}{'.' if behind else ''}{behind}"
