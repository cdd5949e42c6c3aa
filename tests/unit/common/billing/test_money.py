"""Amounts of money are exact, or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.billing.money import amount_text, nanos_of


@pytest.mark.parametrize(
    ("amount", "per", "nanos"),
    [
        ("12.50", 1, 12_500_000_000),
        ("0", 1, 0),
        ("-0.000000001", 1, -1),
        ("0.15", 1_000_000, 150),
        ("0.001", 1_000_000, 1),
        ("3", 3, 1_000_000_000),
    ],
)
def test_an_amount_becomes_nano_units(amount: str, per: int, nanos: int) -> None:
    assert nanos_of(amount, per=per) == nanos


@pytest.mark.parametrize("amount", ["", "1,5", "1e9", ".5", "5.", "+1", " 1", "٣", "1/3", "nan"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="is no amount of money"):
        nanos_of(amount)


@pytest.mark.parametrize(("amount", "per"), [("0.0000000001", 1), ("0.0001", 1_000_000), ("1", 3)])
def test_what_is_no_whole_number_of_nano_units_is_refused(amount: str, per: int) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        nanos_of(amount, per=per)


@given(st.integers(-(10**23), 10**23), st.integers(0, 9))
def test_an_amount_is_shown_exactly(nanos: int, digits: int) -> None:
    shown = amount_text(nanos, digits=digits)
    assert nanos_of(shown) == nanos
    assert -Decimal(shown).as_tuple().exponent >= digits  # type: ignore[operator]
