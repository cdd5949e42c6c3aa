"""States of batches, and what a new one may have."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidRequest
from headrace_control.base.batches import FINAL, MOVES, check_metadata, window_s


def test_every_state_leads_to_an_end_and_no_end_leads_on() -> None:
    assert {"completed", "failed", "expired", "cancelled"} == FINAL
    for status in MOVES:
        reached, left = set[str](), [status]
        while left:
            each = left.pop()
            reached.add(each)
            left += MOVES[each] - reached
        assert reached & FINAL, status


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86400), ("1m", 60), ("168h", 604800)])
def test_a_window_is_minutes_or_hours(window: str, seconds: int) -> None:
    assert window_s(window) == seconds


@pytest.mark.parametrize("window", ["", "24", "0h", "-1h", "169h", "1d", "24 h", "99999m"])
def test_other_windows_are_refused(window: str) -> None:
    with pytest.raises(InvalidRequest, match="completion_window is"):
        window_s(window)


def test_metadata_has_bounds() -> None:
    check_metadata({f"key {i}": "v" * 512 for i in range(16)})
    for metadata in ({"k" * 65: ""}, {"": "v"}, {"k": "v" * 513}, {str(i): "" for i in range(17)}):
        with pytest.raises(InvalidRequest):
            check_metadata(metadata)
