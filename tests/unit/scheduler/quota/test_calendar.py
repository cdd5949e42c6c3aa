"""Days and months where clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_scheduler.quota.calendar import Calendar, earliest_date

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"),
    *("Asia/Beirut", "America/Havana", "America/Santiago", "Africa/Cairo", "Asia/Kolkata"),
    *("Pacific/Apia", "Pacific/Kiritimati", "America/St_Johns", "Pacific/Niue"),
)
"""Some skip a midnight, one (Apia, 2011) a whole day, one (St. Johns, until 2011) had two."""
DAY_MS = 86_400_000
CHANGES_MS = [
    round(datetime(2026, *day, tzinfo=UTC).timestamp()) * 1000
    for day in ((3, 8), (3, 29), (4, 5), (4, 24), (9, 6), (10, 25), (11, 1))
] + [round(datetime(2011, 12, 30, tzinfo=UTC).timestamp()) * 1000] * 2
near_changes = st.builds(
    lambda change_ms, away_ms: change_ms + away_ms,
    st.sampled_from(CHANGES_MS),
    st.integers(-2 * DAY_MS, 2 * DAY_MS),
)
times_ms = near_changes | st.integers(1_200_000_000_000, 2_500_000_000_000)


@given(zone=st.sampled_from(ZONES), at_ms=times_ms)
def test_the_next_day_begins_where_the_calendar_says(zone: str, at_ms: int) -> None:
    calendar = Calendar(zone)
    today = calendar.date(at_ms)
    for ends_ms, part in (
        (calendar.start_of_day_ms(today.day + 1), 0),
        (calendar.start_of_month_ms(today.month + 1), 1),
    ):
        assert ends_ms > at_ms
        assert Calendar(zone).date(ends_ms - 1)[part] <= today[part]
        assert Calendar(zone).date(ends_ms)[part] >= today[part] + 1


@given(zone=st.sampled_from(ZONES), start_ms=times_ms, steps_ms=st.lists(st.integers(1, DAY_MS)))
def test_days_only_grow_and_are_those_of_the_zone(
    zone: str, start_ms: int, steps_ms: list[int]
) -> None:
    calendar, at_ms = Calendar(zone), start_ms
    latest = calendar.date(at_ms)
    for step_ms in steps_ms:
        at_ms += step_ms
        found = calendar.date(at_ms)
        assert found >= latest
        latest = found
        local = datetime.fromtimestamp(at_ms // 1000, ZoneInfo(zone))
        assert found.day - local.toordinal() in (0, 1), "1: its clocks were put back over midnight"
        past = earliest_date(at_ms)
        assert past.day < local.toordinal()
        assert past.month <= local.year * 12 + local.month - 1


def test_a_day_of_a_change_of_clocks_is_an_hour_shorter_or_longer() -> None:
    calendar = Calendar("Europe/Berlin")
    lengths = [
        (calendar.start_of_day_ms(day + 1) - calendar.start_of_day_ms(day)) / 3_600_000
        for day in (date(2026, *each).toordinal() for each in ((3, 29), (6, 1), (10, 25)))
    ]
    assert lengths == [23, 24, 25]


def test_a_midnight_that_is_skipped_is_the_moment_of_the_change() -> None:
    # In Beirut 2026-03-29 begins at 1 o'clock.
    starts_ms = Calendar("Asia/Beirut").start_of_day_ms(date(2026, 3, 29).toordinal())
    assert datetime.fromtimestamp(starts_ms / 1000, UTC) == datetime(2026, 3, 28, 22, tzinfo=UTC)


def test_no_zone_is_utc_and_an_unknown_one_is_an_error() -> None:
    assert Calendar().start_of_day_ms(date(2026, 1, 1).toordinal()) % DAY_MS == 0
    for unknown in ("Europe/Atlantis", "../etc/passwd"):
        with pytest.raises(ValueError, match="unknown time zone"):
            Calendar(unknown)
