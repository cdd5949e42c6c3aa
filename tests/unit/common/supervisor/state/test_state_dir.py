"""The state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.supervisor.state.failures import MeshNotRunning, MeshRunning
from headrace.supervisor.state.state_dir import MeshRecord, ProcessRecord, StateDir

RECORD = MeshRecord(
    supervisor_pid=7,
    url="http://127.0.0.1:1",
    ready=True,
    models=["a"],
    processes=[ProcessRecord("worker", "worker-a-0", 8, {"metrics": 9}, 2)],
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    state_dir = StateDir(tmp_path)
    with state_dir.lock():
        state_dir.write_record(RECORD)
        assert StateDir(tmp_path).read_record() == RECORD


def test_a_directory_is_held_by_one_mesh_at_a_time(tmp_path: Path) -> None:
    with StateDir(tmp_path).lock():
        with pytest.raises(MeshRunning, match="--state-dir"), StateDir(tmp_path).lock():
            pass
        assert StateDir(tmp_path).is_locked
    assert not StateDir(tmp_path).is_locked
    with StateDir(tmp_path).lock():
        pass


def test_the_record_of_a_dead_supervisor_is_ignored(tmp_path: Path) -> None:
    StateDir(tmp_path).write_record(RECORD)
    with pytest.raises(MeshNotRunning, match="headrace up"):
        StateDir(tmp_path).read_record()


def test_reading_a_state_directory_does_not_create_it(tmp_path: Path) -> None:
    assert not StateDir(tmp_path / "none").is_locked
    assert not (tmp_path / "none").exists()


def test_the_logs_of_one_mesh_before_are_kept(tmp_path: Path) -> None:
    state_dir = StateDir(tmp_path)
    with state_dir.lock():
        for text in ("first", "second"):
            state_dir.log("nats").write_text(text)
            state_dir.rotate_logs()
    assert [log.name for log in state_dir.logs.iterdir()] == ["nats.log.1"]
    assert (state_dir.logs / "nats.log.1").read_text() == "second"
