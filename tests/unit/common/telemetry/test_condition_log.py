"""States that are noticed again and again."""

from __future__ import annotations

import logging

import pytest

from headrace.telemetry.condition_log import ConditionLog


def test_a_state_is_logged_once_then_every_half_minute_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = ConditionLog(logging.getLogger("test"), active="lease.unknown", cleared="lease.known")
    state.cleared(0.0)
    for second in range(61):
        state.active(float(second), model="m")
    state.cleared(61.0)
    state.cleared(62.0)
    logged = [(each.getMessage(), vars(each)["times"]) for each in caplog.records]
    assert logged == [
        ("lease.unknown", 1),
        ("lease.unknown", 31),
        ("lease.unknown", 61),
        ("lease.known", 61),
    ]
