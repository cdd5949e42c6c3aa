"""When the stream of usage records counts as full."""

from __future__ import annotations

from dataclasses import replace

from headrace.bus.usage import UsagePosition, UsageState
from headrace_gateway.quota.usage_room import full_fact

DAY_S = 24 * 3600.0
EMPTY = UsageState(
    UsagePosition("s", 0),
    messages=0,
    stored_bytes=0,
    max_bytes=4 << 30,
    oldest_age_s=0.0,
    max_age_s=7 * DAY_S,
)


def test_room_is_left_for_the_records_of_requests_under_way() -> None:
    margin = 256 << 20
    assert full_fact(EMPTY) == ""
    assert full_fact(replace(EMPTY, stored_bytes=(4 << 30) - margin)) == ""
    full = full_fact(replace(EMPTY, stored_bytes=(4 << 30) - margin + 1))
    assert "4026531841 of 4294967296 bytes are in use" in full
    assert "control or the quota keeper has to read it first" in full


def test_what_nothing_reads_is_full_before_it_is_too_old() -> None:
    assert full_fact(replace(EMPTY, oldest_age_s=6 * DAY_S)) == ""
    full = full_fact(replace(EMPTY, oldest_age_s=6.1 * DAY_S))
    assert "its oldest record is 6.1 of 7 days old" in full
