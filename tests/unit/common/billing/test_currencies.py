"""Amounts are rounded half to even, to what their currency is paid in."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.billing.currencies import digits_of, rounded

CENT = 10_000_000


@pytest.mark.parametrize(
    ("nanos", "currency", "amount"),
    [
        (CENT // 2, "USD", 0),
        (CENT // 2 + 1, "USD", CENT),
        (3 * CENT // 2, "USD", 2 * CENT),
        (5 * CENT // 2, "USD", 2 * CENT),
        (-CENT // 2, "USD", 0),
        (-3 * CENT // 2, "USD", -2 * CENT),
        (499_999_999, "JPY", 0),
        (1_500_000_000, "JPY", 2_000_000_000),
        (1_500_000, "KWD", 2_000_000),
        (50_000, "CLF", 0),
    ],
)
def test_of_two_neighbours_the_even_one_is_taken(nanos: int, currency: str, amount: int) -> None:
    assert rounded(nanos, currency) == amount


@given(st.integers(-(10**20), 10**20), st.sampled_from(["USD", "JPY", "KWD", "CLF", "XXX"]))
def test_rounding_is_that_of_decimals(nanos: int, currency: str) -> None:
    unit = Decimal(1).scaleb(-digits_of(currency))
    expected = Decimal(nanos).scaleb(-9).quantize(unit, rounding=ROUND_HALF_EVEN)
    assert Decimal(rounded(nanos, currency)).scaleb(-9) == expected
