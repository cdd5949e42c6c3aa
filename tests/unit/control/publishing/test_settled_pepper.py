"""A new pepper counts once every gateway must have read its file."""

from __future__ import annotations

from headrace_control.publishing.access_reports import SettledPepper
from helpers.control_store import TestClock


def test_digests_under_a_new_pepper_are_stored_once_it_has_settled() -> None:
    clock, current = TestClock(), ["a"]
    pepper = SettledPepper(lambda: current[0], clock, settle_s=60)
    assert pepper.pepper_id() == ""
    clock.advance(60)
    assert pepper.pepper_id() == "a"
    current[0] = "b"
    assert pepper.pepper_id() == ""
    clock.advance(59)
    assert pepper.pepper_id() == ""
    clock.advance(1)
    assert pepper.pepper_id() == "b"
