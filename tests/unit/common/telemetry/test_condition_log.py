"""States that are noticed again and again."""

from __future__ import annotations

import logging

import pytest

from headrace.telemetry.condition_log import ConditionLog


def test_a_state_is_logged_once_then_every_half_minute_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = ConditionLog(logging.getLogger("test"), began="lease.unknown", over="lease.known")
    state.end(0.0)
    for second in range(61):
        state.again(float(second), model="m")
    state.end(61.0)
    state.end(62.0)
    logged = [(each.getMessage(), vars(each)["times"]) for each in caplog.records]
    assert logged == [
        ("lease.unknown", 1),
        ("lease.unknown", 31),
        ("lease.unknown", 61),
        ("lease.known", 61),
    ]
