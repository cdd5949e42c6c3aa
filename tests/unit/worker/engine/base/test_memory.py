"""What the cache may take of a device."""

from __future__ import annotations

from headrace_worker.engine.base.memory import share

GIB = 1 << 30


def test_the_cache_gets_what_its_share_leaves_beside_the_weights() -> None:
    assert share(100 * GIB, 90 * GIB, taken=20 * GIB, utilization=0.5) == 30 * GIB


def test_the_cache_gets_no_more_than_is_free() -> None:
    assert share(100 * GIB, 10 * GIB, taken=20 * GIB, utilization=0.9) == 10 * GIB


def test_weights_beyond_the_share_leave_nothing() -> None:
    assert share(100 * GIB, 90 * GIB, taken=60 * GIB, utilization=0.5) == 0
