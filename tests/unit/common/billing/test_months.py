"""Months begin where their time zone says."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.billing.months import begin_ms, checked_month, end_ms, month_after, month_at
from headrace.billing.time_zones import time_zones

MONTHS = st.builds("{}-{:02d}".format, st.integers(2024, 2099), st.integers(1, 12))
ZONES = st.sampled_from(sorted(time_zones()))


@pytest.mark.parametrize(
    ("zone", "begins"),
    [
        ("UTC", "2026-11-01T00:00+00:00"),
        ("Europe/Zurich", "2026-11-01T00:00+01:00"),
        ("America/New_York", "2026-11-01T00:00-04:00"),
        ("Pacific/Kiritimati", "2026-11-01T00:00+14:00"),
    ],
)
def test_a_month_begins_at_midnight_of_its_zone(zone: str, begins: str) -> None:
    assert begin_ms("2026-11", zone) == datetime.fromisoformat(begins).timestamp() * 1000


@given(MONTHS, ZONES)
def test_months_follow_one_another_without_a_gap(month: str, zone: str) -> None:
    assert end_ms(month, zone) == begin_ms(month_after(month), zone)
    days = (end_ms(month, zone) - begin_ms(month, zone)) / 86_400_000
    assert 27.9 < days < 31.1


@given(st.integers(1_700_000_000_000, 4_000_000_000_000), ZONES)
def test_each_moment_is_in_the_month_that_its_zone_shows(time_ms: int, zone: str) -> None:
    month = month_at(time_ms, zone)
    assert begin_ms(month, zone) <= time_ms < end_ms(month, zone)
    shown = datetime.fromtimestamp(time_ms // 1000, UTC).astimezone(ZoneInfo(zone))
    assert month == f"{shown.year}-{shown.month:02d}"


@pytest.mark.parametrize("text", ["", "2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", "x"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no month"):
        checked_month(text)
