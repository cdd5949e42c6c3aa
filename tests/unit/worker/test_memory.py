"""What the cache may take of a machine, and of a container's part of it."""

from __future__ import annotations

from pathlib import Path

import psutil

from headrace_worker.engine.memory import machine_memory, share

GIB = 1 << 30


def test_the_cache_gets_what_its_share_leaves_beside_the_weights() -> None:
    assert share(100 * GIB, 90 * GIB, taken=20 * GIB, utilization=0.5) == 30 * GIB


def test_the_cache_gets_no_more_than_is_free() -> None:
    assert share(100 * GIB, 10 * GIB, taken=20 * GIB, utilization=0.9) == 10 * GIB


def test_weights_beyond_the_share_leave_nothing() -> None:
    assert share(100 * GIB, 90 * GIB, taken=60 * GIB, utilization=0.5) == 0


def test_a_containers_limit_counts_where_it_is_below_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{24 << 20}\n")
    assert machine_memory(tmp_path) == (64 << 20, 40 << 20)


def test_a_container_without_a_limit_has_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert machine_memory(tmp_path)[0] == psutil.virtual_memory().total
