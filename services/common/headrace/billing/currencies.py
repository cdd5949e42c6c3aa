"""How finely currencies are paid: the digits of ISO 4217, and rounding to them. Pure."""

from __future__ import annotations

NANO_DIGITS = 9
USUAL_DIGITS = 2
_CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DIGITS = {code: digits for digits, codes in _CODES.items() for code in codes.split()}
"""Of the currencies whose smallest unit is not a hundredth."""


def digits_of(currency: str) -> int:
    """Return how many digits its amounts have behind the point."""
    return _DIGITS.get(currency, USUAL_DIGITS)


def rounded(nanos: int, currency: str) -> int:
    """Return an amount in nano-units that is a whole number of the currency's smallest unit: the
    nearest one, and of two the even one.

        rounded(5_000_000, "USD") == 0             # half a cent
        rounded(15_000_000, "USD") == 20_000_000   # one and a half
    """
    unit: int = 10 ** (NANO_DIGITS - digits_of(currency))
    count, rest = divmod(nanos, unit)
    if 2 * rest > unit or (2 * rest == unit and count % 2):
        count += 1
    return count * unit
