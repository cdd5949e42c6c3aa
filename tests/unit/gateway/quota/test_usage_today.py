"""When a day began."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace_gateway.quota.usage_today import midnight_ms


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        ("", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("Europe/Zurich", datetime(2026, 11, 30, 23, 0, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2026, 11, 30, 8, 0, tzinfo=UTC)),
    ],
)
def test_a_day_begins_at_the_tenants_midnight(zone: str, midnight: datetime) -> None:
    now = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert midnight_ms(now.timestamp(), zone) == midnight.timestamp() * 1000
