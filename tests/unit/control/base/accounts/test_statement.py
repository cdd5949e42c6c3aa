"""A statement's lines are exact, are rounded once, and add up."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from headrace.billing.currencies import rounded
from headrace_control.base.accounts.statement import (
    Account,
    Line,
    Statement,
    closed_statement,
    content,
    correction_line,
    hash_of,
    in_order,
    usage_line,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)
TOKENS, NANOS = st.integers(0, 10**12), st.integers(0, 10**9)


@st.composite
def usage_lines(draw: st.DrawFn, currency: str) -> Line:
    cached = draw(TOKENS)
    return usage_line(
        currency,
        model=draw(st.sampled_from(["valley", "ridge"])),
        corrects=draw(st.sampled_from(["", "2026-09", "2026-10"])),
        requests=draw(st.integers(1, 9)),
        input_tokens=cached + draw(TOKENS),
        cached_input_tokens=cached,
        output_tokens=draw(TOKENS),
        input_nanos=draw(NANOS),
        cached_input_nanos=draw(NANOS),
        output_nanos=draw(NANOS),
    )


def statement_of(lines: tuple[Line, ...], currency: str) -> Statement:
    account = Account("a1", "acme", "Europe/Zurich", currency, NOW)
    return Statement(account, "2026-11", 1, 2, NOW, in_order(lines), sequence=7)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    currency = draw(st.sampled_from(["USD", "JPY", "KWD"]))
    return statement_of(tuple(draw(st.lists(usage_lines(currency), max_size=5))), currency)


@given(statements())
def test_the_total_is_the_sum_of_lines_that_are_each_rounded_once(found: Statement) -> None:
    currency = found.account.currency
    assert found.total_nanos == sum(rounded(line.exact_nanos, currency) for line in found.lines)
    assert found.exact_nanos == sum(
        (line.input_tokens - line.cached_input_tokens) * line.input_nanos
        + line.cached_input_tokens * line.cached_input_nanos
        + line.output_tokens * line.output_nanos
        for line in found.lines
    )
    half_a_unit = 500_000_000
    assert abs(found.total_nanos - found.exact_nanos) <= half_a_unit * len(found.lines)


@given(statements())
def test_what_is_kept_of_a_statement_is_all_of_it(found: Statement) -> None:
    kept = closed_statement(content(found))
    assert content(kept) == content(found)
    assert (kept.lines, kept.account, kept.hash) == (
        found.lines,
        found.account,
        hash_of(content(found)),
    )


def test_a_line_of_tokens_is_computed_input_cached_input_and_output() -> None:
    line = usage_line(
        "USD",
        model="valley",
        requests=2,
        input_tokens=1_000_000,
        cached_input_tokens=400_000,
        output_tokens=100_000,
        input_nanos=150,
        cached_input_nanos=75,
        output_nanos=600,
    )
    assert line.exact_nanos == 90_000_000 + 30_000_000 + 60_000_000
    assert line.amount_nanos == 180_000_000


def test_lines_of_the_month_come_before_those_that_correct_others() -> None:
    by_hand = correction_line("USD", month="2026-09", nanos=-50_000_000, reason="an outage")
    late = usage_line("USD", model="valley", corrects="2026-10", requests=1)
    own = usage_line("USD", model="zebra", requests=1)
    found = statement_of((late, by_hand, own), "USD")
    assert found.lines == (own, by_hand, late)
    assert found.total_nanos == -50_000_000
    assert json.loads(content(found))["lines"][1]["reason"] == "an outage"
