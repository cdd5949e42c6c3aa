"""What a record costs, and which sums it is a part of: to the unit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_control.base.accounts.usage import (
    COSTS,
    FREE,
    HOUR_MS,
    MAX_TOKENS,
    TOKENS,
    TokenPrice,
    UnreadableUsage,
    hours_of,
    month_of,
    price_at,
    priced,
    reached,
    read_message,
    read_record,
)
from helpers.usage_records import START_MS, message_of, usage_record

PRICE = TokenPrice(0, 1_000, 100, 2_000)


def row(**fields: Any) -> dict[str, Any]:
    values = read_record(usage_record(1, **fields))
    return values | priced(values, PRICE, "USD")


def test_cached_input_and_output_have_prices_of_their_own() -> None:
    found = row(input_tokens=10, cached_input_tokens=4, output_tokens=5)
    assert found["cost_nanos"] == 6 * 1_000 + 4 * 100 + 5 * 2_000
    assert (found["input_nanos"], found["cached_nanos"], found["output_nanos"]) == (1000, 100, 2000)


def test_the_price_is_that_of_the_time_when_it_ended() -> None:
    first, second = TokenPrice(100, 1, 1, 1), TokenPrice(200, 2, 2, 2)
    at = [price_at([first, second], ms) for ms in (99, 100, 199, 200, 10**15)]
    assert at == [FREE, first, first, second, second]
    assert price_at([], 5) is FREE


def test_a_cost_beyond_64_bits_is_no_row() -> None:
    values = read_record(usage_record(1, input_tokens=MAX_TOKENS))
    with pytest.raises(UnreadableUsage, match="at most 100000000000000000"):
        priced(values, TokenPrice(0, 2**62, 0, 0), "USD")


def test_a_message_has_the_records_that_were_published_together() -> None:
    message = message_of(1, usage_record(7), usage_record(8))
    assert [each.sequence for each in read_message(message.payload).records] == [7, 8]


def test_a_month_is_one_of_the_tenants_time_zone() -> None:
    ms = 1_793_491_200_000  # 2026-11-01 00:00 UTC
    assert [month_of(ms + more, "") for more in (-1, 0)] == ["2026-10", "2026-11"]
    assert month_of(ms, "America/New_York") == "2026-10"
    assert month_of(ms - 1, "Asia/Kolkata") == "2026-11"


def test_a_threshold_is_reached_by_equality() -> None:
    at = [reached(cost, 200) for cost in (0, 99, 100, 159, 160, 199, 200, 900)]
    assert at == [0, 0, 50, 50, 80, 80, 100, 100]
    assert reached(10**18, 0) == 0


@given(
    st.lists(
        st.builds(
            row,
            tenant=st.sampled_from(["a", "b"]),
            model=st.sampled_from(["m", "n"]),
            key_id=st.sampled_from(["", "k"]),
            batch_id=st.sampled_from(["", "batch_1"]),
            end_ms=st.integers(START_MS, START_MS + 3 * HOUR_MS),
            input_tokens=st.integers(4, 10**6),
            cached_input_tokens=st.integers(0, 4),
            output_tokens=st.integers(0, 10**6),
        )
    )
)
def test_the_sums_of_hours_are_the_sums_of_rows(rows: list[dict[str, Any]]) -> None:
    hours = hours_of(rows)
    assert sum(each["requests"] for each in hours) == len(rows)
    for name in TOKENS:
        assert sum(each[name] for each in hours) == sum(each[name] for each in rows)
    cost = sum(each[name] for each in hours for name in COSTS)
    assert cost == sum(each["cost_nanos"] for each in rows)
    keys = [(each["tenant"], each["hour_ms"], each["model"]) for each in hours]
    assert keys == sorted(keys)
