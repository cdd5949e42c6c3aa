"""Which settled reservations are remembered, and for how long."""

from __future__ import annotations

from headrace_scheduler.quota.settled_ids import KEPT_S, MAX_KEPT, MIN_KEPT, SettledIds


def test_the_last_ones_are_remembered_however_long_nothing_comes() -> None:
    settled = SettledIds()
    for number in range(MIN_KEPT + 5):
        settled.add(f"r{number}", number // 5)
    settled.drop_old(KEPT_S + 10**6)
    assert len(settled) == MIN_KEPT
    assert "r4" not in settled
    assert "r5" in settled
    settled.add("later", KEPT_S + 10**6)
    settled.drop_old(KEPT_S + 10**6)
    assert "r5" in settled


def test_no_more_than_so_many_are_remembered() -> None:
    settled = SettledIds()
    for number in range(MAX_KEPT + 3):
        settled.add(f"r{number}", 1)
    assert len(settled) == MAX_KEPT
    assert "r2" not in settled
    assert f"r{MAX_KEPT + 2}" in settled
